"""Windows without what is never looked at: what makes an index of many spans small.

To inflate from a checkpoint, zlib wants the 32 KiB of output before it; of these the span refers to a tenth or so. The
rest is set to zero, and a window compresses to about 2 KiB: mxmlnkn/rapidgzip calls that a sparse window. Which bytes
are referred to is found with zlib alone: a span's beginning is inflated behind two made-up windows whose bytes say
where they stand.

The place `i` has the byte `low(i)` in the first window and `low(i) ^ high(i)` in the second, `low` from 1 to 255 and
`high` from 1 to 129, no pair twice. A byte that comes out equal behind both was a literal; one that differs was copied
from the place that has its pair. Nothing is guessed, so the thin window needs no proof by inflating once more.
"""

import sys
from array import array
from functools import cache
from typing import Final

from edge.errors import InvalidInputError
from edge.images.soci.checkpoints import WINDOW_BYTES, Checkpoint
from edge.images.soci.libz import NO_FLUSH, RAW, InflateStream, OutputBuffer

ENOUGH: Final = WINDOW_BYTES + (8 << 10)
"""Compressed bytes that nearly always inflate to 32 KiB; a window for which they do not is kept whole."""

_CYCLE: Final = 255
_STEP: Final = 8 << 10
"""Output after which what came out is forgotten. A copy of a copy says nothing new, and most of them are that."""
_BLOCKS: Final = [
    (high << 8 | 1, at, min(at + _CYCLE, WINDOW_BYTES))
    for high, at in enumerate(range(0, WINDOW_BYTES, _CYCLE), start=1)
]
"""Where the places of one `high` lie in a table by pairs, and in a window."""
_ONES_UNLESS_ZERO: Final = b"\0" + b"\xff" * 255


class _Marked:
    """Two streams that inflate behind the made-up windows; one thread at a time."""

    def __init__(self) -> None:
        low = bytes(1 + place % _CYCLE for place in range(WINDOW_BYTES))
        mixed = bytes(one ^ (1 + place // _CYCLE) for place, one in enumerate(low))
        # After `_STEP` bytes the window has moved on, and what came out meanwhile is as good as literal.
        steps = range(0, WINDOW_BYTES, _STEP)
        self._windows = [[window[step:] + bytes(step) for step in steps] for window in (low, mixed)]
        self._streams = [InflateStream(RAW), InflateStream(RAW)]
        self._buffers = [OutputBuffer(WINDOW_BYTES), OutputBuffer(WINDOW_BYTES)]

    def behind(self, number: int, point: Checkpoint, compressed: bytes) -> tuple[memoryview, bool]:
        """Return up to 32 KiB that come out behind a made-up window, and whether the member ends there."""
        windows, stream, buffer = self._windows[number], self._streams[number], self._buffers[number]
        stream.restart(RAW)
        stream.feed(compressed)
        if point.bits:
            stream.skip(1)
            stream.prime(point.bits, compressed[0] >> (8 - point.bits))
        written = 0
        while written < WINDOW_BYTES and not stream.ended and stream.remaining:
            step, into = divmod(written, _STEP)
            if not into:
                stream.set_window(windows[step])
            written += stream.inflate(buffer, written, (step + 1) * _STEP, NO_FLUSH)
        return buffer.view[:written], stream.ended


@cache
def _marked() -> _Marked:
    return _Marked()


def thinned(point: Checkpoint, compressed: bytes) -> bytes:
    """Return a checkpoint's window with zeros for what the span does not refer to. For one thread of a process.

    Args:
        point: The checkpoint.
        compressed: The span's first bytes, from the one it shares with the span before; `ENOUGH` of them are enough.
    """
    window = bytes(point.window)
    if not any(window):
        return window
    try:
        one, ended = _marked().behind(0, point, compressed)
        if len(one) < WINDOW_BYTES and not ended:
            return window
        other, _ = _marked().behind(1, point, compressed)
    except InvalidInputError:
        return window
    return _kept(window, _pairs(one, other))


def _pairs(one: memoryview, other: memoryview) -> set[int]:
    """Return `high << 8 | low` of each place that is referred to."""
    # Through whole numbers: Python has no faster way to compare two strings byte by byte.
    lows = int.from_bytes(one, "little")
    highs = (lows ^ int.from_bytes(other, "little")).to_bytes(len(one), "little")
    copied = int.from_bytes(highs.translate(_ONES_UNLESS_ZERO), "little")
    pairs = bytearray(2 * (len(highs) - highs.count(0)))
    pairs[0::2] = (lows & copied).to_bytes(len(one), "little").translate(None, b"\0")
    pairs[1::2] = highs.translate(None, b"\0")
    found = array("H", bytes(pairs))
    if sys.byteorder == "big":
        found.byteswap()
    return set(found)


def _kept(window: bytes, pairs: set[int]) -> bytes:
    """Return a window with only the places of these pairs."""
    by_pair, kept = bytearray(1 << 16), bytearray(1 << 16)
    for pair, start, end in _BLOCKS:
        by_pair[pair : pair + end - start] = window[start:end]
    for pair in pairs:
        kept[pair] = by_pair[pair]
    return b"".join([kept[pair : pair + end - start] for pair, start, end in _BLOCKS])
