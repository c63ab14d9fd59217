"""One log file that another process writes, begins anew at a size, and may cut: read to its end, nothing twice."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from edge.agent.telemetry.log_lines import LineReader

LOG_NAME: Final = "container.log"
_CHUNK: Final = 64 * 1024
_LOOK: Final = 32 * 1024 * 1024
"""Bytes that are read of one file before others are looked at."""
_HEAD: Final = 64
"""Bytes that tell one file of a name from the next: its first line begins with a time in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a log was read, kept across restarts.

    Attributes:
        head: The first bytes of the file in hexadecimal. Not its inode: conmon writes the next file beside the old
            one and renames it, and the kernel gives the number of the old one away again.
        offset: Everything before it was handed over.
    """

    head: str
    offset: int


class LogFile:
    """The log of one container, in a folder of its own. For one thread.

    Args:
        folder: Where it is.
        position: How far it was read before; None for not at all.
        learn: Has `replaced` called for each file that took its name until now; asked when that matters.

    Attributes:
        reader: Puts its lines together.
        missed_files: Files that were begun and replaced before they were read, since somebody last looked and set
            it to 0.
        has_grown: The last look found something.
        has_more: The last look ended before the file did.
    """

    def __init__(self, folder: Path, position: Position | None, learn: Callable[[], object] = lambda: None) -> None:
        self.reader = LineReader()
        self.missed_files = 0
        self.has_grown = self.has_more = False
        self._path = folder / LOG_NAME
        self._from = position
        self._descriptor: int | None = None
        self._offset = 0
        self._head = b""
        self._learn = learn
        self._replacements = 0
        self._switches = 0

    def replaced(self) -> None:
        """Another file was given its name."""
        self._replacements += 1

    def position(self) -> Position | None:
        """Return what to begin with after a restart; None while there is no file."""
        if self._descriptor is None:
            return self._from
        return Position(self._head.hex(), self.reader.safe_offset)

    def chunks(self) -> Iterator[bytes]:
        """Yield what was written since (of very much, a part), through files that took one another's place; each once.

        Raises:
            OSError: It cannot be read.
        """
        self.has_grown = self.has_more = False
        if self._descriptor is None and not self._open():
            return
        left = _LOOK
        while True:
            for data in self._rest():
                yield data
                left -= len(data)
                if left <= 0:
                    # Its writer is quicker than whoever reads: the others' turn.
                    self.has_more = True
                    return
            self._learn()
            if self._identity() == _identity_of(self._path):
                # Nothing took its name since it was opened, so what was learnt is all: those that were not opened
                # in between came and went unread.
                self.missed_files += max(0, self._replacements - self._switches)
                self._replacements = self._switches = 0
                return
            # conmon closes the old file before the new one takes its name: what is there now is all of it.
            yield from self._rest()
            self._release()
            if not self._open():
                return
            self._switches += 1

    def close(self) -> None:
        """Free the file."""
        self._release()

    def _rest(self) -> Iterator[bytes]:
        descriptor = self._descriptor
        assert descriptor is not None  # noqa: S101 - both callers looked
        if os.fstat(descriptor).st_size < self._offset:
            # Cut in place, as logrotate's copytruncate does.
            self.reader.begin(0)
            self._offset, self._head = 0, b""
        while data := os.pread(descriptor, _CHUNK, self._offset):
            if len(self._head) < _HEAD:
                self._head = os.pread(descriptor, _HEAD, 0)
            self._offset += len(data)
            self.has_grown = True
            yield data

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        self._offset, before = 0, self._from
        self._head = os.pread(self._descriptor, _HEAD, 0)
        if before is not None and before.offset:
            self._from = None
            known = bytes.fromhex(before.head)
            if self._head[: len(known)] == known and os.fstat(self._descriptor).st_size >= before.offset:
                self._offset = before.offset
            else:
                self.missed_files += 1
        self.reader.begin(self._offset)
        return True

    def _identity(self) -> tuple[int, int] | None:
        if self._descriptor is None:
            return None
        found = os.fstat(self._descriptor)
        return found.st_dev, found.st_ino

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def positions_to_json(positions: dict[str, Position]) -> bytes:
    """Return positions, by name of the log, as they are kept."""
    return json.dumps({name: asdict(position) for name, position in positions.items()}).encode()


def positions_from_json(data: bytes) -> dict[str, Position]:
    """Return what `positions_to_json` wrote; what is damaged is left out, and its log is read from the beginning."""
    found = {}
    with suppress(ValueError, RecursionError):
        document: Any = json.loads(data)
        for name, fields in document.items() if isinstance(document, dict) else ():
            with suppress(TypeError, ValueError, KeyError):
                bytes.fromhex(fields["head"])
                found[str(name)] = Position(str(fields["head"]), max(0, int(fields["offset"])))
    return found
