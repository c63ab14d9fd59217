"""The compact form of a zTOC: thin windows, gzip around it. A tenth of the bytes, so that spans can be small.

It is a zTOC like others once it is unpacked: whoever reads zTOCs can read it.
"""

import gzip
import zlib
from typing import Final

from edge.errors import InvalidInputError
from edge.images.soci.ztoc import MAX_ZTOC_BYTES

COMPACT_SPAN_SIZE: Final = 256 << 10
"""Uncompressed bytes between checkpoints: `docs/lazy-images.md` has what was measured."""

MAX_COMPACT_BYTES: Final = 64 << 20

_GZIP: Final = 31
_LEVEL: Final = 6


def pack_ztoc(ztoc: bytes) -> bytes:
    """Return the compact form, the same bytes for the same zTOC."""
    return gzip.compress(ztoc, _LEVEL, mtime=0)


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
