"""The compact form of a zTOC: thin windows, gzip around it. A tenth of the bytes, so that spans can be small.

It is a zTOC like others once it is unpacked: whoever reads zTOCs can read it.
"""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edge.errors import InvalidInputError
from edge.images.soci.ztoc import MAX_ZTOC_BYTES

COMPACT_SPAN_SIZE: Final = 256 << 10
"""Uncompressed bytes between checkpoints: `docs/lazy-images.md` has what was measured."""

MAX_COMPACT_BYTES: Final = 64 << 20

_GZIP: Final = 31
_RAW: Final = -15
_LEVEL: Final = 6
_PART_BYTES: Final = 2 << 20
_HISTORY_BYTES: Final = 32 << 10
_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952: DEFLATE, no name, no time, no system."""
_TRAILER: Final = struct.Struct("<II")


def pack_ztoc(ztoc: bytes) -> bytes:
    """Return the compact form, the same bytes for the same zTOC."""
    starts = range(0, max(len(ztoc), 1), _PART_BYTES)
    # The parts beside each other, each knowing what came before it: https://zlib.net/pigz/
    with ThreadPoolExecutor() as beside:
        parts = list(beside.map(lambda start: _deflated(ztoc, start), starts))
    return b"".join((_HEADER, *parts, _TRAILER.pack(zlib.crc32(ztoc), len(ztoc) & 0xFFFF_FFFF)))


def _deflated(data: bytes, start: int) -> bytes:
    end, before = start + _PART_BYTES, data[max(start - _HISTORY_BYTES, 0) : start]
    # Without history zlib wants no dictionary at all.
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW, 8, zlib.Z_DEFAULT_STRATEGY, *([before] if before else []))
    packed = packer.compress(memoryview(data)[start:end])
    return packed + packer.flush(zlib.Z_SYNC_FLUSH if end < len(data) else zlib.Z_FINISH)


class ZtocUnpacker:
    """Unpacks a compact zTOC as it arrives.

    Raises (all methods):
        InvalidInputError: It is not a compact zTOC, or one that is too large.
    """

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP)
        self._left = MAX_ZTOC_BYTES

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece and return what it gives."""
        try:
            found = self._inflater.decompress(piece, self._left + 1)
        except zlib.error as error:
            raise InvalidInputError(f"the compact zTOC is damaged: {error}", hint="Build the index again.") from error
        self._left -= len(found)
        if self._left < 0 or self._inflater.unused_data:
            raise InvalidInputError(f"the compact zTOC is larger than {MAX_ZTOC_BYTES} bytes, or more than one")
        return found

    def finish(self) -> None:
        """Say that this was all."""
        if not self._inflater.eof:
            raise InvalidInputError("the compact zTOC breaks off", hint="Build the index again.")


def unpack_ztoc(data: bytes) -> bytes:
    """Return the zTOC; raises as `ZtocUnpacker`."""
    unpacker = ZtocUnpacker()
    found = unpacker.feed(data)
    unpacker.finish()
    return found
