"""A layer's recipe: how its tar is put together from the files' content and from everything else.

What is no file's content (headers, padding, the end mark) stands in it, content as the digests of its chunks. Whoever
has the chunks from elsewhere makes the same tar, byte for byte, which its DiffID proves. It also has the places where
the layer's gzip stream can be entered, without the 32 KiB before each: they are made as the rest is.

    head: magic, compression, bytes of the layer and of its tar, bytes of the directory and of the points, both packed
    directory: for each block its digest, bytes of the tar, bytes packed and unpacked
    points: for each place, since the one before: bytes of the layer, bytes of the tar, bits
    blocks: for each chunk the bytes of the tar before it, its size and its digest

Directory, points and blocks are packed with zlib each by itself. A block ends where a chunk's digest says so, and says
nothing about where it lies: a newer version of a layer has the same blocks where its files are the same, and a device
that has the older recipe fetches the others.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from edge.errors import InvalidInputError
from edge.images.delta.cutting import DIGEST_BYTES, MAX_CHUNK, Chunk, digest
from edge.images.soci.builder import MAX_UNCOMPRESSED_BYTES
from edge.images.soci.checkpoints import MAX_SPAN_BYTES
from edge.images.soci.values import Compression

MAX_RECIPE_BYTES: Final = 128 << 20
MAX_CHUNKS: Final = 1 << 20
MAX_POINTS: Final = 1 << 18
POINT_DISTANCE: Final = 32 << 10
"""Uncompressed bytes between two places to enter; each costs some five bytes."""

_MAGIC: Final = b"EDGERCP1"
_HEAD: Final = struct.Struct("<8sBQQII")
_ENTRY: Final = struct.Struct(f"<{DIGEST_BYTES}sQII")
_MAX_BLOCKS: Final = 1 << 17
_MOST_CHUNKS: Final = 1024
_MOST_LITERAL: Final = 1 << 20
_MAX_BLOCK: Final = 8 << 20
_ENDS_BLOCK: Final = 64
"""One digest in so many ends a block."""
_MAX_RATIO: Final = 1032
"""DEFLATE cannot expand a byte to more (https://zlib.net/zlib_tech.html)."""
_LEVEL: Final = 9


class Point(NamedTuple):
    """A place in a gzip stream where inflating can start, given the 32 KiB before; see `checkpoints.Checkpoint`."""

    compressed: int
    uncompressed: int
    bits: int


class Piece(NamedTuple):
    """Bytes of the tar that are no content, then a chunk of content, or None at the end of the tar."""

    literal: bytes
    chunk: Chunk | None


class Block(NamedTuple):
    """A block in a recipe: where it is, and what it covers.

    Attributes:
        digest: Of the block unpacked.
        size: Bytes of the tar.
        start: In the recipe.
        packed: Bytes there.
        unpacked: Bytes of the block.
    """

    digest: bytes
    size: int
    start: int
    packed: int
    unpacked: int


@dataclass(frozen=True, slots=True)
class RecipeHead:
    """All of a recipe but its blocks.

    Attributes:
        compressed_size: Bytes of the layer as the registry has it.
        tar_size: Bytes of its tar, padding included.
        points: Empty for a layer that is not compressed.
    """

    compression: Compression
    compressed_size: int
    tar_size: int
    blocks: tuple[Block, ...]
    points: tuple[Point, ...]

    @property
    def size(self) -> int:
        """Bytes of the recipe."""
        return self.blocks[-1].start + self.blocks[-1].packed


@dataclass(frozen=True, slots=True)
class BuiltRecipe:
    """A recipe as it is stored; `head_size` bytes of it are all but its blocks."""

    data: bytes
    head_size: int


class RecipeWriter:
    """Takes a layer's pieces in order and packs them."""

    def __init__(self) -> None:
        self._held: list[Piece] = []
        self._literal = 0
        self._chunks = 0
        self._blocks: list[tuple[bytes, bytes]] = []

    def add(self, piece: Piece) -> None:
        """Take the next piece.

        Raises:
            InvalidInputError: There are too many, or it is too large.
        """
        self._held.append(piece)
        self._literal += len(piece.literal)
        if piece.chunk is None:
            return
        self._chunks += 1
        if self._chunks > MAX_CHUNKS or self._literal > _MAX_BLOCK // 2:
            raise InvalidInputError(
                f"the layer has more than {MAX_CHUNKS} chunks, or a header of {self._literal} bytes"
            )
        if (
            piece.chunk.digest[0] % _ENDS_BLOCK == 0
            or len(self._held) >= _MOST_CHUNKS
            or self._literal >= _MOST_LITERAL
        ):
            self._close()

    def _close(self) -> None:
        data = _encode(self._held)
        covers = self._literal + sum(piece.chunk.size for piece in self._held if piece.chunk is not None)
        self._blocks.append((_ENTRY.pack(digest(data), covers, 0, len(data)), zlib.compress(data, _LEVEL)))
        self._held, self._literal = [], 0

    def finish(self, compression: Compression, compressed_size: int, points: Sequence[Point]) -> BuiltRecipe:
        """Say that this was all, and return the recipe."""
        if self._held or not self._blocks:
            self._close()
        entries, tar_size = list[bytes](), 0
        for entry, packed in self._blocks:
            name, covers, _, unpacked = _ENTRY.unpack(entry)
            entries.append(_ENTRY.pack(name, covers, len(packed), unpacked))
            tar_size += covers
        directory = zlib.compress(b"".join(entries), _LEVEL)
        places = zlib.compress(_encode_points(points), _LEVEL)
        head = _HEAD.pack(_MAGIC, compression, compressed_size, tar_size, len(directory), len(places))
        front = head + directory + places
        return BuiltRecipe(front + b"".join(packed for _, packed in self._blocks), len(front))


def read_head(data: bytes) -> RecipeHead:
    """Decode all of a recipe but its blocks.

    Args:
        data: The recipe, or as much as its head is.

    Raises:
        InvalidInputError: It is malformed, or larger than a device takes.
    """
    if len(data) < _HEAD.size:
        raise _wrong("it breaks off")
    magic, kind, compressed_size, tar_size, directory_size, points_size = _HEAD.unpack_from(data)
    if magic != _MAGIC or kind not in {one.value for one in Compression} or len(data) > MAX_RECIPE_BYTES:
        raise _wrong("it is no recipe, or one of another version")
    if tar_size > MAX_UNCOMPRESSED_BYTES or compressed_size > MAX_UNCOMPRESSED_BYTES:
        raise _wrong(f"its layer has {tar_size} bytes, more than {MAX_UNCOMPRESSED_BYTES}")
    middle = _HEAD.size + directory_size
    start = middle + points_size
    if start > len(data):
        raise _wrong("it breaks off")
    blocks = _read_directory(data[_HEAD.size : middle], start, tar_size)
    places = _unpack(data[middle:start], MAX_POINTS * 16)
    points = tuple(_decode_points(places, compressed_size, tar_size))
    if bool(points) != (kind == Compression.GZIP):
        raise _wrong("its places to enter are not those of its compression")
    _check_points(points, compressed_size, tar_size)
    return RecipeHead(Compression(kind), compressed_size, tar_size, blocks, points)


def _read_directory(packed_directory: bytes, start: int, tar_size: int) -> tuple[Block, ...]:
    entries = _unpack(packed_directory, _MAX_BLOCKS * _ENTRY.size)
    if not entries or len(entries) % _ENTRY.size:
        raise _wrong("its directory breaks off")
    blocks, covered = list[Block](), 0
    for name, covers, packed, unpacked in _ENTRY.iter_unpack(entries):
        if unpacked > _MAX_BLOCK or not 0 < packed <= unpacked + 1024:
            raise _wrong(f"a block of {packed} bytes that unpacks to {unpacked}")
        blocks.append(Block(name, covers, start, packed, unpacked))
        start, covered = start + packed, covered + covers
    if covered != tar_size or start > MAX_RECIPE_BYTES:
        raise _wrong(f"its blocks cover {covered} bytes of {tar_size}")
    return tuple(blocks)


def _check_points(points: Sequence[Point], compressed_size: int, tar_size: int) -> None:
    ends = (*points[1:], Point(compressed_size, tar_size, 0)) if points else ()
    for before, after in zip(points, ends, strict=True):
        made, stored = after.uncompressed - before.uncompressed, after.compressed - before.compressed
        if stored <= 0 or not 0 <= made <= min(MAX_SPAN_BYTES, (stored + 1) * _MAX_RATIO):
            raise _wrong(f"{stored} bytes of its layer that inflate to {made}")


def unpack_block(block: Block, packed: bytes) -> bytes:
    """Return a block's own bytes, verified.

    Raises:
        InvalidInputError: They are others than the directory describes.
    """
    data = _unpack(packed, block.unpacked)
    if len(data) != block.unpacked or digest(data) != block.digest:
        raise _wrong("a block has another digest than its directory says")
    return data


def pieces_of(block: Block, data: bytes) -> Iterator[Piece]:
    """Yield what an unpacked block describes.

    Raises:
        InvalidInputError: It is malformed.
    """
    count, at = _number(data, 0)
    if count > _MOST_CHUNKS + 1:
        raise _wrong(f"a block of {count} chunks")
    numbers = list[tuple[int, int]]()
    for _ in range(count):
        literal, at = _number(data, at)
        size, at = _number(data, at)
        numbers.append((literal, size))
    text = at
    names = text + sum(literal for literal, _ in numbers)
    if names + DIGEST_BYTES * sum(size > 0 for _, size in numbers) != len(data):
        raise _wrong("a block has other bytes than its numbers say")
    covered = 0
    for literal, size in numbers:
        if size > MAX_CHUNK:
            raise _wrong(f"a chunk of {size} bytes")
        covered += literal + size
        yield Piece(data[text : text + literal], Chunk(size, data[names : names + DIGEST_BYTES]) if size else None)
        text += literal
        names += DIGEST_BYTES if size else 0
    if covered != block.size:
        raise _wrong(f"a block covers {covered} bytes, its directory says {block.size}")


def _encode(pieces: Sequence[Piece]) -> bytes:
    numbers = bytearray(_varint(len(pieces)))
    for piece in pieces:
        numbers += _varint(len(piece.literal)) + _varint(piece.chunk.size if piece.chunk is not None else 0)
    literals = b"".join(piece.literal for piece in pieces)
    return bytes(numbers) + literals + b"".join(piece.chunk.digest for piece in pieces if piece.chunk is not None)


def _encode_points(points: Sequence[Point]) -> bytes:
    out, before = bytearray(), Point(0, 0, 0)
    for point in points:
        out += _varint(point.compressed - before.compressed) + _varint(point.uncompressed - before.uncompressed)
        out.append(point.bits)
        before = point
    return bytes(out)


def _decode_points(data: bytes, compressed_size: int, tar_size: int) -> Iterator[Point]:
    at, before = 0, Point(0, 0, 0)
    while at < len(data):
        compressed, at = _number(data, at)
        uncompressed, at = _number(data, at)
        if at >= len(data):
            raise _wrong("its places to enter break off")
        point = Point(before.compressed + compressed, before.uncompressed + uncompressed, data[at])
        first = before.compressed == 0
        outside = point.compressed >= compressed_size or point.uncompressed > tar_size
        if not compressed or outside or point.bits > 7 or first != (point.uncompressed == 0):  # noqa: PLR2004 - of a byte
            raise _wrong("its places to enter are not in order, or outside the layer")
        yield point
        at, before = at + 1, point


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004 - seven bits in a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 63:  # noqa: PLR2004 - what fits 64 bits
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004
            return value, at
        shift += 7
    raise _wrong("a number breaks off")


def _unpack(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(data, most + 1)
    except zlib.error as error:
        raise _wrong(f"it does not inflate: {error}") from error
    if len(found) > most or not inflater.eof or inflater.unused_data:
        raise _wrong("a part of it inflates to more than it may, or breaks off")
    return found


def _wrong(problem: str) -> InvalidInputError:
    return InvalidInputError(f"the layer's recipe is malformed: {problem}", hint="Build the index again.")
