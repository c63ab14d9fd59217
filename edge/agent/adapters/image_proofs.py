"""What there is of images' signatures: fetched by a short-lived process, kept in the state directory.

The fetching speaks to registries and reads what anybody may have pushed there; it is another program's work
(`edge image signatures`), ended when it takes too long. It believes nothing and needs no trust: what it brings is
proven by the agent. A device without an image service has it too.
"""

import hashlib
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge import errors
from edge.errors import ImagePullError, RegistryUnavailableError, StoreError, TransientError
from edge.files import make_folder, store_error, write_atomically
from edge.model.image_trust.evidence import MAXIMUM_EVIDENCE_BYTES

_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 15.0
_MAXIMUM_FILES: Final = 512
_REASON: Final = "CannotPullContainerError"


class ImageProofs:
    """Fulfils `Proofs` in a folder, which is made when something is kept. Usable from any thread."""

    def __init__(self, folder: Path, seconds: float = _SECONDS) -> None:
        self._folder = folder
        self._seconds = seconds

    def gather(self, reference: str, architecture: str) -> bytes:
        """See `Proofs`."""
        options = ("--architecture", architecture, "--evidence", "--seconds", f"{self._seconds:g}", "--output", "json")
        command = (sys.executable, "-m", "edge", "image", "signatures", *options, "--", reference)
        try:
            done = subprocess.run(  # noqa: S603 - our own program, and a reference after `--`
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._seconds + _GRACE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RegistryUnavailableError(
                f"the signatures of {reference} did not come in {self._seconds:g} s", reason=_REASON
            ) from error
        if done.returncode == 0 and len(done.stdout) <= MAXIMUM_EVIDENCE_BYTES:
            return done.stdout
        raise _failure(reference, done.stderr)

    def kept(self, reference: str) -> tuple[bytes, ...]:
        """See `Proofs`."""
        found = []
        for path in self._files(f"{_name(reference)}-*"):
            with suppress(OSError):
                found.append(path.read_bytes())
        return tuple(found)

    def keep(self, reference: str, image_id: str, data: bytes) -> None:
        """See `Proofs`."""
        try:
            make_folder(self._folder)
            write_atomically(self._folder / f"{_name(reference)}-{image_id}", data)
            for path in self._files("*")[_MAXIMUM_FILES:]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(f"cannot keep the signatures of {reference}", error) from error

    def _files(self, pattern: str) -> list[Path]:
        """The newest first."""
        try:
            found = [(path.stat().st_mtime_ns, path) for path in self._folder.glob(pattern)]
        except OSError as error:
            raise StoreError(f"cannot read {self._folder}: {error.strerror}") from error
        return [path for _, path in sorted(found, reverse=True)]


def _name(reference: str) -> str:
    return hashlib.sha256(reference.encode()).hexdigest()[:32]


def _failure(reference: str, told: bytes) -> ImagePullError | RegistryUnavailableError:
    try:
        document = json.loads(told.splitlines()[-1])
        kind, message, hint = (str(document[name]) for name in ("error", "message", "hint"))
    except (ValueError, LookupError, TypeError, RecursionError):
        kind, message, hint = "", told.decode("utf-8", "replace")[-300:].strip(), ""
    text = f"the signatures of {reference} cannot be had: {message or 'their fetching was ended'}"
    # Who was ended, for want of memory for example, may do better next time.
    named = getattr(errors, kind, None)
    again = not kind or (isinstance(named, type) and issubclass(named, TransientError))
    return (RegistryUnavailableError if again else ImagePullError)(text, reason=_REASON, hint=hint)
