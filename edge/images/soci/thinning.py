"""Thin the windows of a stream while it is inflated, in a process of its own beside the one that inflates.

`python -m edge.images.soci.thinning` takes on stdin, for each window: how many bits precede its first byte (`uint8`),
how many compressed bytes follow (`uint32`), the window and these bytes; and writes the thin window to stdout.
"""

import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Final

from edge.errors import EdgeError
from edge.images.soci.checkpoints import WINDOW_BYTES, Checkpoint
from edge.images.soci.thin_windows import ENOUGH, thinned

_FEW: Final = 16
"""Windows that are thinned sooner than a process starts."""

_ASK = struct.Struct("<BI")


@dataclass(slots=True)
class _Waiting:
    point: Checkpoint
    compressed: bytearray = field(default_factory=bytearray)


class WindowThinner:
    """Takes a gzip stream in pieces beside its checkpoints. Whoever makes one closes it."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._few: list[_Waiting] = []
        self._child: _Child | None = None
        self._position = 0
        self._last = b""

    def feed(self, data: bytes, points: Sequence[Checkpoint]) -> None:
        """Take the next piece of the stream, and the checkpoints that were found in it.

        Raises:
            EdgeError: The process beside has ended.
        """
        for one in self._waiting:
            one.compressed += data[: ENOUGH - len(one.compressed)]
        for point in points:
            start = point.compressed - (point.bits > 0) - self._position
            # The byte that two spans share may be the last of the piece before.
            begun = self._last[start:] + data[:ENOUGH] if start < 0 else data[start : start + ENOUGH]
            self._waiting.append(_Waiting(point, bytearray(begun)))
        self._position += len(data)
        self._last = data[-1:] or self._last
        self._hand_on(ENOUGH)

    def finish(self) -> Iterator[bytes]:
        """Say that the stream is at its end, and yield the thin windows, one for each checkpoint, in order.

        Raises:
            EdgeError: The process beside has ended.
        """
        self._hand_on(0)
        if self._child is not None:
            yield from self._child.finish()
        for one in self._few:
            yield thinned(one.point, bytes(one.compressed))

    def close(self) -> None:
        """End the process beside."""
        if self._child is not None:
            self._child.close()

    def _hand_on(self, least: int) -> None:
        # In order: a later span cannot have more of the stream than one before it.
        while self._waiting and len(self._waiting[0].compressed) >= least:
            self._few.append(self._waiting.pop(0))
        if self._child is None and len(self._few) > _FEW:
            self._child = _Child()
        if self._child is not None:
            for one in self._few:
                self._child.put(one.point, one.compressed)
            self._few = []


class _Child:
    def __init__(self) -> None:
        # A session of its own: an interrupt is its parent's business.
        self._process = subprocess.Popen(
            (sys.executable, "-m", "edge.images.soci.thinning"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._asked = 0
        self._thin: list[bytes] = []
        # Read all the time: neither of the two may wait for the other to read.
        self._reader = threading.Thread(target=self._read, name="thin-windows", daemon=True)
        self._reader.start()

    def put(self, point: Checkpoint, compressed: bytearray) -> None:
        self._asked += 1
        try:
            for part in (_ASK.pack(point.bits, len(compressed)), point.window, compressed):
                self._input.write(part)
        except BrokenPipeError as error:
            raise self._gone() from error

    def finish(self) -> list[bytes]:
        with suppress(BrokenPipeError):
            self._input.close()
        self._reader.join()
        if len(self._thin) != self._asked:
            raise self._gone()
        return self._thin

    def close(self) -> None:
        self._process.kill()
        self._reader.join()
        with suppress(BrokenPipeError):
            self._process.__exit__(None, None, None)

    @property
    def _input(self) -> IO[bytes]:
        if self._process.stdin is None:
            raise AssertionError
        return self._process.stdin

    def _read(self) -> None:
        while (
            self._process.stdout is not None and len(window := self._process.stdout.read(WINDOW_BYTES)) == WINDOW_BYTES
        ):
            self._thin.append(window)

    def _gone(self) -> EdgeError:
        code = self._process.wait()
        return EdgeError(f"the process that thins windows ended with {code}", hint="Is there enough memory?")


def main() -> None:
    """Thin what comes until there is no more."""
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(_ASK.size)) == _ASK.size:
        bits, count = _ASK.unpack(head)
        window, compressed = asked.read(WINDOW_BYTES), asked.read(count)
        answers.write(thinned(Checkpoint(0, 0, bits, window), compressed))


if __name__ == "__main__":
    main()
