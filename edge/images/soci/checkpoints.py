"""The checkpoints of a zTOC, encoded and decoded, and the spans they cut a layer into.

gzip (awslabs/soci-snapshotter `ztoc/compression/gzip_zinfo.{h,c}`), little endian, packed: `int32` count,
`int64` span size, then for each checkpoint `int64` compressed offset, `int64` uncompressed offset, `uint8` bits and
the 32 KiB of output before it. The older layout leaves the first checkpoint out; the length tells them apart.
Uncompressed: a FlatBuffer `TarZinfo` (`ztoc/compression/fbs/zinfo.fbs`).
"""

import re
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, assert_never

from edge.errors import InvalidInputError
from edge.images.soci.flatbuffer import Field, Reader, Shape, Writer
from edge.images.soci.values import Compression, Span, Ztoc

WINDOW_BYTES: Final = 1 << 15
"""DEFLATE refers back at most this far (RFC 1951)."""

MAX_SPAN_BYTES: Final = 128 << 20
"""Uncompressed bytes of one span: it is inflated in memory, on a small device."""

MAX_SPANS: Final = 1 << 13
"""Spans of one layer: a gzip layer has a window of 32 KiB for each."""

_MAX_HEADER_BYTES: Final = 1 << 20
"""A gzip header before the first checkpoint; it may hold a name and a comment (RFC 1952)."""

_MAX_BITS: Final = 7
"""Of a byte that two spans share."""

_MAX_RATIO: Final = 1032
"""DEFLATE cannot expand a byte to more (https://zlib.net/zlib_tech.html)."""

_FIRST_IN_OLD_LAYOUT: Final = 10
"""Where the older layout assumes the first checkpoint: after a gzip header without optional fields (RFC 1952)."""

_HEADER = struct.Struct("<iq")
_POINT = struct.Struct("<qqB")
_RECORD_BYTES: Final = _POINT.size + WINDOW_BYTES
_TAR_VERSION: Final = 2
_TAR = Shape(Field(0, "i"), Field(1, "q"), Field(2, "q"))
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


class Checkpoint(NamedTuple):
    """A place in a gzip stream where inflating can start.

    Attributes:
        compressed: Offset of the first whole byte.
        uncompressed: Offset in the output.
        bits: How many high bits of the byte before `compressed` come first, 0 to 7.
        window: The 32 KiB of output before it, zeros in front when there are fewer.
    """

    compressed: int
    uncompressed: int
    bits: int
    window: bytes | memoryview


def write_gzip_checkpoints(points: Sequence[Checkpoint], span_size: int) -> bytes:
    """Encode checkpoints in the current layout."""
    parts: list[bytes | memoryview] = [_HEADER.pack(len(points), span_size)]
    for point in points:
        parts += (_POINT.pack(point.compressed, point.uncompressed, point.bits), point.window)
    return b"".join(parts)


def read_gzip_checkpoints(data: bytes | memoryview) -> tuple[Checkpoint, ...]:
    """Decode checkpoints in either layout; windows stay views of `data`.

    Raises:
        InvalidInputError: The length fits neither layout.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise _wrong(f"{len(view)} bytes of checkpoints hold no header")
    count, _ = _HEADER.unpack_from(view)
    stored, rest = divmod(len(view) - _HEADER.size, _RECORD_BYTES)
    if rest or count < 0 or stored not in (count, count - 1):
        raise _wrong(f"{len(view)} bytes of checkpoints do not hold {count}")
    first = [Checkpoint(_FIRST_IN_OLD_LAYOUT, 0, 0, bytes(WINDOW_BYTES))] if stored < count else []
    starts = range(_HEADER.size, len(view), _RECORD_BYTES)
    windows = (view[at + _POINT.size : at + _RECORD_BYTES] for at in starts)
    numbers = (_POINT.unpack_from(view, at) for at in starts)
    points = (
        Checkpoint(compressed, uncompressed, bits, window)
        for (compressed, uncompressed, bits), window in zip(numbers, windows, strict=True)
    )
    return (*first, *points)


def write_tar_checkpoints(span_size: int, size: int) -> bytes:
    """Encode the span size and the size of an uncompressed layer."""
    writer = Writer()
    return writer.finish(writer.table(_TAR, [_TAR_VERSION, span_size, size]))


def _read_tar_checkpoints(data: bytes | memoryview) -> tuple[Checkpoint, ...]:
    reader = Reader(data, "the checkpoint block of the uncompressed layer")
    _, span_size, size = reader.table(_TAR, reader.root())
    if not 0 < span_size <= MAX_SPAN_BYTES or not 0 < size <= span_size * MAX_SPANS:
        raise reader.wrong(f"{size} bytes cannot be cut into spans of {span_size}")
    return tuple(Checkpoint(at, at, 0, b"") for at in range(0, size, span_size))


@dataclass(frozen=True, slots=True)
class SpanTable:
    """Where a layer can be entered: its spans in order, and the window that each needs."""

    compression: Compression
    spans: tuple[Span, ...]
    windows: Sequence[bytes | memoryview]
    _starts: tuple[int, ...]

    def at(self, offset: int) -> Span:
        """Return the span that holds the uncompressed byte at `offset`.

        Raises:
            InvalidInputError: There is no such byte.
        """
        if not 0 <= offset < self.spans[-1].uncompressed_end:
            raise InvalidInputError(f"the layer has no byte {offset}")
        return self.spans[bisect_right(self._starts, offset) - 1]

    def covering(self, start: int, end: int) -> tuple[Span, ...]:
        """Return the spans that hold the uncompressed bytes from `start` to before `end`; none if that is empty."""
        return self.spans[self.at(start).number : self.at(end - 1).number + 1] if start < end else ()


def span_table(ztoc: Ztoc) -> SpanTable:
    """Cut a layer into spans as its zTOC says.

    Raises:
        InvalidInputError: Checkpoints, digests and sizes do not fit together, or a span is too large to inflate.
    """
    match ztoc.compression:
        case Compression.GZIP:
            points = read_gzip_checkpoints(ztoc.checkpoints)
        case Compression.UNCOMPRESSED:
            points = _read_tar_checkpoints(ztoc.checkpoints)
        case _:
            assert_never(ztoc.compression)
    if not len(points) == len(ztoc.span_digests) == ztoc.max_span_id + 1 or not points:
        raise _wrong(f"{len(points)} checkpoints, {len(ztoc.span_digests)} digests, last span {ztoc.max_span_id}")
    _check_order(points, ztoc)
    spans = tuple(_spans(points, ztoc))
    for span in spans:
        _check_span(span, ztoc.compression)
    return SpanTable(
        ztoc.compression,
        spans,
        tuple(point.window for point in points),
        tuple(span.uncompressed_start for span in spans),
    )


def _spans(points: Sequence[Checkpoint], ztoc: Ztoc) -> list[Span]:
    # Padding after the tar's end mark is not counted in uncompressed_size: the last checkpoints may lie behind it.
    outs = [min(point.uncompressed, ztoc.uncompressed_size) for point in points] + [ztoc.uncompressed_size]
    ins = [point.compressed for point in points] + [ztoc.compressed_size]
    return [
        Span(i, ins[i] - (point.bits > 0), ins[i + 1], outs[i], outs[i + 1], point.bits, ztoc.span_digests[i])
        for i, point in enumerate(points)
    ]


def _check_order(points: Sequence[Checkpoint], ztoc: Ztoc) -> None:
    first, last = points[0], points[-1]
    least = int(ztoc.compression is Compression.GZIP)
    outside = last.compressed >= ztoc.compressed_size or ztoc.uncompressed_size < 0
    if first.uncompressed or not least <= first.compressed <= _MAX_HEADER_BYTES or outside:
        raise _wrong("the first or the last checkpoint lies outside the layer")
    for before, after in pairwise(points):
        if after.compressed <= before.compressed or after.uncompressed < before.uncompressed:
            raise _wrong("the checkpoints are not in order")


def _check_span(span: Span, compression: Compression) -> None:
    stored = span.compressed_end - span.compressed_start
    most = stored if compression is Compression.UNCOMPRESSED else stored * _MAX_RATIO
    if stored > MAX_SPAN_BYTES or not 0 <= span.size <= min(most, MAX_SPAN_BYTES) or span.bits > _MAX_BITS:
        raise _wrong(f"span {span.number} would make {span.size} bytes of {stored}")
    if not _DIGEST.fullmatch(span.digest):
        raise _wrong(f"the digest of span {span.number} is not a SHA-256 digest")


def _wrong(problem: str) -> InvalidInputError:
    return InvalidInputError(f"the zTOC's spans are malformed: {problem}", hint="Build the index again.")
