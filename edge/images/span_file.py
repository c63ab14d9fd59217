"""A layer's spans on this device: what a zTOC says of them, mapped from a file, with each window compressed.

Little endian: `EDGESPN1`, `uint8` compression as the zTOC numbers it, `uint32` count; for each span `int64` start and
end in the blob, `int64` start and end in the tar, `uint8` bits, its digest's 32 bytes, `uint64` offset, `uint32` length
and `uint32` CRC-32 of its window (zlib, RFC 1950; length 0 for none); then the windows.
"""

import mmap
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, overload

from edge.errors import StoreError
from edge.files import write_atomically
from edge.images.soci.checkpoints import MAX_SPANS, WINDOW_BYTES, SpanTable
from edge.images.soci.values import Compression, Span

_MAGIC: Final = b"EDGESPN1"
_HEADER: Final = struct.Struct("<8sBI")
_RECORD: Final = struct.Struct("<qqqqB32sQII")
_LEVEL: Final = 1
_SHA256: Final = "sha256:"


def write_span_file(path: Path, table: SpanTable) -> None:
    """Keep a table of spans.

    Raises:
        StoreFullError: The disk is full.
        StoreError: It cannot be written.
    """
    records, windows = bytearray(), bytearray()
    begin = _HEADER.size + _RECORD.size * len(table.spans)
    for span, window in zip(table.spans, table.windows, strict=True):
        packed = zlib.compress(window, _LEVEL) if any(window) else b""
        place = begin + len(windows) if packed else 0
        records += _RECORD.pack(
            *span[1:5], span.bits, bytes.fromhex(span.digest.removeprefix(_SHA256)), place, len(packed), _crc(packed)
        )
        windows += packed
    header = _HEADER.pack(_MAGIC, table.compression, len(table.spans))
    write_atomically(path, b"".join((header, records, windows)))


def open_span_file(path: Path) -> SpanTable:
    """Map what was kept; windows stay in the file until they are used.

    Raises:
        StoreError: It is damaged.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, compression, count = _HEADER.unpack_from(data)
        if magic != _MAGIC or not 0 < count <= MAX_SPANS:
            raise ValueError(f"{count} spans")  # noqa: TRY301 - one way out for all that may be wrong
        rows = [_RECORD.unpack_from(data, _HEADER.size + number * _RECORD.size) for number in range(count)]
        spans = tuple(
            Span(number, begin, end, first, last, bits, _SHA256 + digest.hex())
            for number, (begin, end, first, last, bits, digest, *_) in enumerate(rows)
        )
        kind = Compression(compression)
    except (OSError, ValueError, struct.error) as error:
        raise StoreError(f"the table of spans {path} is damaged: {error}") from error
    windows = _Windows(data, path)
    data.madvise(mmap.MADV_DONTNEED)
    return SpanTable(kind, spans, windows, tuple(span.uncompressed_start for span in spans))


class _Windows(Sequence[bytes]):
    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self._data = data
        self._path = path

    def __len__(self) -> int:
        count: int = _HEADER.unpack_from(self._data)[2]
        return count

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        if not 0 <= index < len(self):
            raise IndexError(index)
        *_, place, length, crc = _RECORD.unpack_from(self._data, _HEADER.size + index * _RECORD.size)
        packed = self._data[place : place + length]
        if _crc(packed) != crc:
            raise StoreError(f"window {index} in {self._path} is damaged")
        return zlib.decompress(packed) if packed else bytes(WINDOW_BYTES)


def _crc(data: bytes) -> int:
    return zlib.crc32(data)
