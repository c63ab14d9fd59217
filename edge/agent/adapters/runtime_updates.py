"""The updater, from the agent's side: a request is written, somebody else does it, a result is read.

The updater is a program of its own, because it stops this one: under systemd `edge-update.path` starts it as soon as
the request is there, elsewhere the agent starts it in a session of its own. It is the version that proved itself last.
"""

import os
import subprocess
import time
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from edge.errors import EdgeError
from edge.files import make_folder, store_error, write_atomically
from edge.managed_runtime import REQUEST_FILE, RESULT_FILE, TRIAL_FILE, UPDATE_FOLDER, managed_base, updater
from edge.model.document import Document
from edge.model.runtime_update import (
    Outcome,
    Trial,
    UpdateRequest,
    UpdateResult,
)

D = TypeVar("D", bound=Document)
_LOOK_SECONDS: Final = 1.0
_BEGIN_SECONDS: Final = 3600.0
"""A slow link needs long for a bundle; after this it is said that nothing happens."""


class RuntimeUpdates:
    """Fulfils `engine.ports.Updates`.

    Args:
        config: The agent's configuration file, which the updater reads too.
        state_dir: Where `update/` is.
    """

    def __init__(self, config: Path, state_dir: Path) -> None:
        self._config = config
        self._folder = state_dir / UPDATE_FOLDER

    def carry_out(self, request: UpdateRequest) -> UpdateResult:
        """Have it done, and wait for the end."""
        base = managed_base()
        if base is None:
            return _failed(request, "this edge is not one of several versions in a folder, so it cannot be updated")
        try:
            process = self._hand_over(request, base)
        except EdgeError as error:
            return _failed(request, str(error))
        give_up = time.monotonic() + _BEGIN_SECONDS + request.window_seconds
        while time.monotonic() < give_up:
            result = self._read(RESULT_FILE, UpdateResult)
            if result is not None and result.id == request.id:
                return result
            if process is not None and process.poll() is not None and not self._is_open(request.id):
                break
            time.sleep(_LOOK_SECONDS)
        return _failed(request, "the updater did not take it to an end; `edge firmware status` shows how far it is")

    def _hand_over(self, request: UpdateRequest, base: Path) -> "subprocess.Popen[bytes] | None":
        result = self._read(RESULT_FILE, UpdateResult)
        if result is not None and result.id == request.id:
            return None
        if not self._is_open(request.id):
            if self._read(TRIAL_FILE, Trial) or self._read(REQUEST_FILE, UpdateRequest):
                raise EdgeError("another update is under way")
            try:
                make_folder(self._folder)
            except OSError as error:
                raise store_error(f"cannot make {self._folder}", error) from error
            write_atomically(
                self._folder / REQUEST_FILE, request.model_dump_json(by_alias=True, exclude_none=True).encode()
            )
        return None if _is_unit() else self._start_updater(base)

    def _start_updater(self, base: Path) -> "subprocess.Popen[bytes]":
        program = updater(base, self._config)
        try:
            return subprocess.Popen(program, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
        except OSError as error:
            raise store_error(f"cannot start {program[0]}", error) from error

    def _is_open(self, request_id: str) -> bool:
        documents = (self._read(TRIAL_FILE, Trial), self._read(REQUEST_FILE, UpdateRequest))
        return any(one is not None and one.id == request_id for one in documents)

    def _read(self, name: str, kind: type[D]) -> D | None:
        try:
            return kind.model_validate_json((self._folder / name).read_bytes())
        except (OSError, ValidationError):
            return None


def _is_unit() -> bool:
    """Whether systemd itself started us; the variable (systemd.exec(5)) alone is passed on to whoever we start."""
    return "INVOCATION_ID" in os.environ and os.getppid() == 1


def _failed(request: UpdateRequest, reason: str) -> UpdateResult:
    return UpdateResult(id=request.id, outcome=Outcome.FAILED, reason=reason)
