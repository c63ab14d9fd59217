"""A layer's chunks on this device, and where its gzip stream can be entered: a recipe without its literals.

Little endian: `EDGECHK1`, `uint8` compression, `uint64` bytes of the layer and of the tar, `uint32` number of chunks
and of points, `uint32` CRC-32 of what follows; for each chunk `uint64` start in the tar; for each `uint32` size; for
each its digest; for each point `uint64` offset in the layer; for each `uint64` in the tar; for each `uint8` bits.
"""

import struct
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.errors import StoreError
from edge.files import write_atomically
from edge.images.delta.cutting import DIGEST_BYTES
from edge.images.delta.recipe import MAX_CHUNKS, MAX_POINTS, Point, RecipeHead
from edge.images.soci.values import Compression

_MAGIC: Final = b"EDGECHK1"
_HEADER: Final = struct.Struct("<8sBQQIII")


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """The chunks of a layer, in the tar's order; each is a number.

    Attributes:
        compressed_size: Bytes of the layer as the registry has it.
        tar_size: Bytes of its tar.
        starts: Of each chunk in the tar.
        sizes: Of each chunk.
        points: Where inflating can start; empty for a layer that is not compressed.
    """

    compression: Compression
    compressed_size: int
    tar_size: int
    starts: Sequence[int]
    sizes: Sequence[int]
    points: tuple[Point, ...]
    _digests: bytes

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.starts)

    def digest(self, number: int) -> bytes:
        """Return a chunk's digest."""
        return self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def end(self, number: int) -> int:
        """Return where a chunk ends in the tar."""
        return self.starts[number] + self.sizes[number]

    def covering(self, start: int, end: int) -> range:
        """Return the chunks that hold bytes of the tar from `start` to before `end`."""
        first = max(0, bisect_right(self.starts, start) - 1)
        if first < self.count and self.end(first) <= start:
            first += 1
        last = bisect_right(self.starts, end - 1)
        return range(first, max(first, last))


def write_chunk_file(path: Path, head: RecipeHead, chunks: Iterable[tuple[int, int, bytes]]) -> None:
    """Keep a recipe's chunks: start, size and digest of each.

    Raises:
        StoreFullError: The disk is full.
        StoreError: It cannot be written.
    """
    starts, sizes, digests = array("Q"), array("I"), bytearray()
    for start, size, digest in chunks:
        starts.append(start)
        sizes.append(size)
        digests += digest
    ins, outs = (
        array("Q", (one.compressed for one in head.points)),
        array("Q", (one.uncompressed for one in head.points)),
    )
    numbers = [_little(one) for one in (starts, sizes, ins, outs)]
    body = b"".join((numbers[0], numbers[1], digests, *numbers[2:], bytes(one.bits for one in head.points)))
    header = _HEADER.pack(
        _MAGIC, head.compression, head.compressed_size, head.tar_size, len(starts), len(ins), zlib.crc32(body)
    )
    write_atomically(path, header + body)


def read_chunk_file(path: Path) -> ChunkTable:
    """Read what was kept.

    Raises:
        StoreError: It is damaged.
    """
    try:
        data = path.read_bytes()
        magic, kind, compressed_size, tar_size, chunks, points, crc = _HEADER.unpack_from(data)
        if magic != _MAGIC or chunks > MAX_CHUNKS or points > MAX_POINTS or zlib.crc32(data[_HEADER.size :]) != crc:
            raise ValueError("its checksum is wrong")  # noqa: TRY301 - one way out for all that may be wrong
        compression = Compression(kind)
    except (OSError, ValueError, struct.error) as error:
        raise StoreError(f"the table of chunks {path} is damaged: {error}") from error
    at = _HEADER.size
    starts, at = _array("Q", data, at, chunks)
    sizes, at = _array("I", data, at, chunks)
    digests, at = data[at : at + chunks * DIGEST_BYTES], at + chunks * DIGEST_BYTES
    ins, at = _array("Q", data, at, points)
    outs, at = _array("Q", data, at, points)
    places = tuple(Point(*one) for one in zip(ins, outs, data[at : at + points], strict=True))
    return ChunkTable(compression, compressed_size, tar_size, starts, sizes, places, digests)


def _little(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def _array(kind: str, data: bytes, at: int, count: int) -> tuple["array[int]", int]:
    found = array(kind)
    end = at + count * found.itemsize
    found.frombytes(data[at:end])
    if sys.byteorder == "big":
        found.byteswap()
    return found, end
