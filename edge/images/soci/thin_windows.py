"""Windows without what is never looked at: what makes an index of many spans small.

To inflate from a checkpoint, zlib wants the 32 KiB of output before it; of these the span refers to a tenth or so. The
rest is set to zero, and a window compresses to about 2 KiB: mxmlnkn/rapidgzip calls that a sparse window. Which bytes
are referred to is found with zlib alone: a span's beginning is inflated behind two made-up windows whose bytes say
where they stand.
"""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from edge.errors import InvalidInputError
from edge.images.soci.checkpoints import WINDOW_BYTES, Checkpoint
from edge.images.soci.libz import NO_FLUSH, RAW, InflateStream, OutputBuffer

_ENOUGH: Final = WINDOW_BYTES + (8 << 10)
"""Compressed bytes that nearly always inflate to 32 KiB; a window for which they do not is kept whole."""
_LOW: Final = bytes(place & 0xFF for place in range(WINDOW_BYTES))
_HIGH: Final = bytes(place >> 8 for place in range(WINDOW_BYTES))
_ONES_FOR_ZERO: Final = b"\xff" + bytes(255)


@dataclass(slots=True)
class _Waiting:
    number: int
    point: Checkpoint
    compressed: bytearray = field(default_factory=bytearray)


class WindowThinner:
    """Takes a gzip stream in pieces beside its checkpoints. `thin` is complete after `finish`.

    Attributes:
        thin: The windows, one for each checkpoint, in order.
    """

    def __init__(self) -> None:
        self.thin: list[bytes] = []
        self._waiting: list[_Waiting] = []
        self._position = 0
        self._last = b""

    def feed(self, data: bytes, points: Sequence[Checkpoint]) -> None:
        """Take the next piece of the stream, and the checkpoints that were found in it."""
        for one in self._waiting:
            one.compressed += data[: _ENOUGH - len(one.compressed)]
        for point in points:
            start = point.compressed - (point.bits > 0) - self._position
            # The byte that two spans share may be the last of the piece before.
            begun = self._last[start:] + data[:_ENOUGH] if start < 0 else data[start : start + _ENOUGH]
            self._waiting.append(_Waiting(len(self.thin), point, bytearray(begun)))
            self.thin.append(bytes(point.window))
        self._position += len(data)
        self._last = data[-1:] or self._last
        self._settle(_ENOUGH)

    def finish(self) -> None:
        """Say that the stream is at its end."""
        self._settle(0)

    def _settle(self, least: int) -> None:
        for one in self._waiting:
            if len(one.compressed) >= least:
                self.thin[one.number] = thinned(one.point, bytes(one.compressed))
        self._waiting = [one for one in self._waiting if len(one.compressed) < least]


def thinned(point: Checkpoint, compressed: bytes) -> bytes:
    """Return a checkpoint's window with zeros for what the span does not refer to.

    Args:
        point: The checkpoint.
        compressed: The span's first bytes, from the one it shares with the span before; 40 KiB are enough.
    """
    window = bytes(point.window)
    if not any(window):
        return window
    try:
        true, ended = _behind(window, point, compressed)
        if len(true) < WINDOW_BYTES and not ended:
            return window
        low, high = _behind(_LOW, point, compressed)[0], _behind(_HIGH, point, compressed)[0]
        thin = _and(window, _used(low, high, true, window))
        # The proof, and cheap: behind both windows the span begins alike, and later it cannot look back so far.
        return thin if _behind(thin, point, compressed)[0] == true else window
    except InvalidInputError:
        return window


def _used(low: bytes, high: bytes, true: bytes, window: bytes) -> bytes:
    """Return ones for each byte of a window that is referred to, zeros for the others.

    What the marked windows change is referred to. Where a byte of the window is what marks its place nothing changes:
    those, one in 256, count as referred to.
    """
    words = bytearray(2 * len(low))
    words[0::2], words[1::2] = low, high
    places = array("H", bytes(words))
    if sys.byteorder == "big":
        places.byteswap()
    same = _xor(window, _LOW)
    used = bytearray(same.translate(_ONES_FOR_ZERO))
    for place in set(compress(places, _xor(low, true))):
        used[place] = 0xFF
    return bytes(used)


def _behind(window: bytes, point: Checkpoint, compressed: bytes) -> tuple[bytes, bool]:
    """Return the first 32 KiB after a checkpoint if `window` had been before it, and whether the member ends."""
    buffer = OutputBuffer(WINDOW_BYTES)
    with InflateStream(RAW) as stream:
        stream.feed(compressed)
        if point.bits:
            stream.skip(1)
            stream.prime(point.bits, compressed[0] >> (8 - point.bits))
        stream.set_window(window)
        written = 0
        while written < WINDOW_BYTES and not stream.ended and stream.remaining:
            written += stream.inflate(buffer, written, WINDOW_BYTES, NO_FLUSH)
        return bytes(buffer.view[:written]), stream.ended


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def _and(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") & int.from_bytes(other, "big")).to_bytes(len(one), "big")
