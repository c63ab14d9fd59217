"""The log file Podman writes (`k8s-file`), taken apart: pure.

Each line of the file is `<RFC 3339 time> <stdout|stderr> <P|F> <text>`; `P` is a part of a line that goes on in the
next entry of the same stream, `F` ends it (Kubernetes' CRI log format; conmon's `ctr_logging.c`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

MAXIMUM_TEXT: Final = 8 * 1024
"""Bytes of one entry; a longer line becomes several. Written as JSON each may take six times its size, and a record
has at most 64 KiB."""
MAXIMUM_LINE: Final = 64 * 1024
"""Bytes of the file without a newline after which they are taken for a line: nobody writes such a one."""
_FIELDS: Final = 4
_TAIL: Final = 16
"""Lines at the end of what is left out, among which the last piece of each stream is looked for."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log it is, and what its task definition calls the place where it goes.

    Attributes:
        group: `awslogs-group`; empty when the definition names none.
        stream: `<awslogs-stream-prefix>/<container>/<task id>`, as ECS makes it; empty without a prefix.
    """

    task_id: str
    container: str
    group: str = ""
    stream: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a container, or a part of a long one.

    Attributes:
        time: RFC 3339 by the device's wall clock when it was written; empty when the file does not say.
        goes_on: The line goes on in the next entry of the stream.
    """

    time: str
    stream: str
    text: str
    goes_on: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """What one piece of a file gave: entries, and how much of it was left out."""

    entries: list[Entry]
    dropped_lines: int = 0
    dropped_bytes: int = 0


class LineReader:
    """Puts the entries of one log file together, whatever the pieces it is read in."""

    def __init__(self) -> None:
        self._rest = b""
        self._offset = 0
        self._parts: dict[str, _Part] = {}
        self._headless: set[str] = set()

    @property
    def safe_offset(self) -> int:
        """How far the file is done with: who begins there again misses nothing, and may see a little twice."""
        return min([self._offset, *(part.offset for part in self._parts.values())])

    def begin(self, offset: int) -> None:
        """Begin at `offset` of a file; lines that an earlier file left in parts may be ended in it."""
        self._rest, self._offset = b"", offset
        self._parts = {stream: replace(part, offset=offset) for stream, part in self._parts.items()}

    def read(self, data: bytes, admits: Callable[[int], bool]) -> Read:
        """Take the next bytes of the file.

        Args:
            data: They may end anywhere.
            admits: Asked for each line with its size; after the first no the rest of `data` is only counted.
        """
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) > MAXIMUM_LINE:
            end = len(data)
        self._rest = data[end:]
        entries: list[Entry] = []
        position = ends = headless_bytes = 0
        while position < end:
            after = data.find(b"\n", position, end) + 1 or end
            if not admits(after - position):
                lines = self._drop(data[position:end])
                return Read(entries, ends + lines, headless_bytes + end - position)
            piece = _piece(data[position:after].rstrip(b"\n"))
            self._offset += after - position
            if piece.stream in self._headless:
                # The rest of a line whose beginning was left out is none that anybody wrote.
                headless_bytes += after - position
                ends += not piece.goes_on
                self._headless -= set() if piece.goes_on else {piece.stream}
            else:
                entries += self._add(piece, self._offset - (after - position))
            position = after
        return Read(entries, ends, headless_bytes)

    def finish(self) -> list[Entry]:
        """Return what was begun and will not be ended, because nobody writes to the file any more."""
        parts, self._parts = self._parts, {}
        return [entry for stream, part in parts.items() for entry in _cut(part.time, stream, part.text, goes_on=False)]

    def _drop(self, data: bytes) -> int:
        """Leave out whole pieces, and return how many lines end in them; counting is all that is done with each."""
        self._offset += len(data)
        begun = set(self._parts)
        self._parts = {}
        seen: set[str] = set()
        # What stands before the last lines is one piece of its own here, unless there is nothing before them.
        lines = data.rsplit(b"\n", _TAIL)
        for line in reversed(lines[1:] if len(lines) > _TAIL else lines):
            piece = _piece(line)
            if piece.time and piece.stream not in seen:
                seen.add(piece.stream)
                self._headless -= {piece.stream}
                self._headless |= {piece.stream} if piece.goes_on else set()
        self._headless |= begun - seen
        return data.count(b"\n") - data.count(b" stdout P ") - data.count(b" stderr P ")

    def _add(self, piece: "_Piece", offset: int) -> list[Entry]:
        time, text = piece.time, piece.text
        part = self._parts.pop(piece.stream, None)
        if part is not None:
            time, text = part.time, part.text + text
        if not piece.goes_on:
            return _cut(time, piece.stream, text, goes_on=False)
        if len(text) >= MAXIMUM_TEXT:
            return _cut(time, piece.stream, text, goes_on=True)
        self._parts[piece.stream] = _Part(part.offset if part else offset, time, text)
        return []


@dataclass(frozen=True, slots=True)
class _Piece:
    time: str
    stream: str
    goes_on: bool
    text: bytes


def _piece(line: bytes) -> _Piece:
    fields = line.split(b" ", _FIELDS - 1)
    if len(fields) < _FIELDS or fields[1] not in _STREAMS:
        return _Piece("", "stdout", goes_on=False, text=line)
    return _Piece(fields[0].decode("ascii", "replace"), _STREAMS[fields[1]], fields[2] == b"P", fields[3])


@dataclass(frozen=True, slots=True)
class _Part:
    offset: int
    time: str
    text: bytes


def log_record(source: Source, entry: Entry, at_ms: int) -> dict[str, Any]:
    """Return an entry as a record."""
    record: dict[str, Any] = {"t": at_ms, "time": entry.time, "task": source.task_id, "container": source.container}
    if source.group:
        record |= {"group": source.group, "stream": source.stream}
    record |= {"from": entry.stream, "text": entry.text}
    return record | {"goesOn": True} if entry.goes_on else record


def dropped_record(source: Source, at_ms: int, *, lines: int, size: int, files: int) -> dict[str, Any]:
    """Return the one record that tells of lines that were left out, and of files that went before they were read."""
    record: dict[str, Any] = {"t": at_ms, "kind": "dropped", "task": source.task_id, "container": source.container}
    if source.group:
        record |= {"group": source.group, "stream": source.stream}
    text = f"{lines} lines dropped" + (f", and {files} files that were not read" if files else "")
    return record | {"lines": lines, "bytes": size, "files": files, "text": text}


def _cut(time: str, stream: str, text: bytes, *, goes_on: bool) -> list[Entry]:
    pieces = [text[start : start + MAXIMUM_TEXT] for start in range(0, max(1, len(text)), MAXIMUM_TEXT)]
    last = len(pieces) - 1
    return [
        Entry(time, stream, piece.decode(errors="replace"), goes_on or number < last)
        for number, piece in enumerate(pieces)
    ]


_STREAMS: Final[Mapping[bytes, str]] = {b"stdout": "stdout", b"stderr": "stderr"}
