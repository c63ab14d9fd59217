"""The folder `update/` of the state directory: what an update is, on the disk, so that any end can be followed."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from edge import locks
from edge.errors import InvalidInputError, StoreError
from edge.files import make_folder, store_error, sync_folder, write_atomically
from edge.managed_runtime import REQUEST_FILE, RESULT_FILE, TRIAL_FILE
from edge.model.document import Document
from edge.model.runtime_bundle import version_key
from edge.model.runtime_update import (
    Trial,
    UpdateRequest,
    UpdateResult,
)

D = TypeVar("D", bound=Document)
_LOCK_FILE: Final = "updater.lock"
_FLOOR_FILE: Final = "floor"
_MAXIMUM_BYTES: Final = 64 * 1024


class Spool:
    """Reads and writes the documents of `edge.model.runtime_update`; what is damaged counts as not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Wait until no other updater works here, and be the one.

        Raises:
            StoreError: The folder cannot be used.
        """
        try:
            make_folder(self.folder)
            file = (self.folder / _LOCK_FILE).open("ab")
        except OSError as error:
            raise store_error(f"cannot use {self.folder}", error) from error
        with file:
            fcntl.fcntl(file, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            while not locks.take(file):
                time.sleep(0.2)
            yield

    def request(self) -> UpdateRequest | None:
        """Return what was asked for and is not done."""
        return self._read(REQUEST_FILE, UpdateRequest)

    def ask(self, request: UpdateRequest) -> None:
        """Note what is asked for."""
        make_folder(self.folder)
        self._write(REQUEST_FILE, request)

    def trial(self) -> Trial | None:
        """Return the trial under way."""
        return self._read(TRIAL_FILE, Trial)

    def note_trial(self, trial: Trial) -> None:
        """Note where a trial is, before anything is done of it."""
        self._write(TRIAL_FILE, trial)

    def result(self) -> UpdateResult | None:
        """Return how the last update ended."""
        return self._read(RESULT_FILE, UpdateResult)

    def finish(self, result: UpdateResult) -> None:
        """Note the end, and only then forget what led there."""
        self._write(RESULT_FILE, result)
        for name in (TRIAL_FILE, REQUEST_FILE):
            (self.folder / name).unlink(missing_ok=True)
        sync_folder(self.folder)

    def floor(self) -> str:
        """Return the newest version that ever proved itself here; `0.0.0` when none is noted."""
        try:
            text = (self.folder / _FLOOR_FILE).read_bytes()[:64].decode().strip()
            version_key(text)
        except (OSError, UnicodeDecodeError, InvalidInputError):
            return "0.0.0"
        return text

    def raise_floor(self, version: str) -> None:
        """Let nothing older than this come back by itself."""
        if version_key(version) > version_key(self.floor()):
            write_atomically(self.folder / _FLOOR_FILE, f"{version}\n".encode(), 0o644)

    def incoming(self, digest: str) -> Path:
        """Return where a bundle from a registry arrives; what was there of it stays, of others it goes."""
        path = self.folder / f"{digest.removeprefix('sha256:')}.bundle"
        for other in self.folder.glob("*.bundle"):
            if other != path:
                other.unlink(missing_ok=True)
        return path

    def forget_incoming(self) -> None:
        """Remove bundles that arrived."""
        for path in self.folder.glob("*.bundle"):
            path.unlink(missing_ok=True)

    def _write(self, name: str, document: Document) -> None:
        write_atomically(self.folder / name, document.model_dump_json(by_alias=True, exclude_none=True).encode())

    def _read(self, name: str, kind: type[D]) -> D | None:
        path = self.folder / name
        try:
            if os.path.getsize(path) > _MAXIMUM_BYTES:  # noqa: PTH202 - one call
                return None
            return kind.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
