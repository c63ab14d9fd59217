"""A block's bytes in a segment: a header of fixed size, then the payload as it is sent.

Little-endian, 92 bytes: magic, the segment's number, epoch, first, count, length of the payload, first_ms, last_ms,
boot id, how many records the log had before, how many of them the block before it stands for, crc32 of the payload,
crc32 of the header. Each crc is zlib's. The segment's number is in every block because segments are used again: what is
left of a segment's former life has another number and is no block.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from edge.model.records import MAXIMUM_BLOCK, MAXIMUM_BLOCK_RECORDS, Block

MAGIC: Final = b"EOB1"
_FIELDS: Final = struct.Struct("<4sQQQIIQQ16sQQI")
_CRC: Final = struct.Struct("<I")
HEADER_SIZE: Final = _FIELDS.size + _CRC.size
SECTOR: Final = 4096
"""What one sync writes begins on such a boundary: a sector that was synced is never written again in its life."""
MAXIMUM_PAYLOAD: Final = MAXIMUM_BLOCK + 4096
"""zlib makes bytes that cannot be compressed longer by 5 in 16 KiB and 11 (its `deflateBound`)."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a block's header says.

    Attributes:
        before: How many records were put into the stream's log before this block, in all its life.
        follows: How many of these there were when the block before this one was on the disk. It is less than `before`
            when a write in between failed; it is more than a reader has seen when something was lost.
    """

    segment: int
    epoch: int
    first: int
    count: int
    length: int
    first_ms: int
    last_ms: int
    boot_id: bytes
    before: int
    follows: int
    payload_crc: int

    @property
    def last(self) -> int:
        """The last record's number."""
        return self.first + self.count - 1

    @property
    def through(self) -> int:
        """How many records the log has with this block."""
        return self.before + self.count

    @property
    def size(self) -> int:
        """Bytes of the block in its segment, without padding."""
        return HEADER_SIZE + self.length

    def block(self, stream: str, payload: bytes) -> Block:
        """Return the block that was written."""
        return Block(
            stream, self.epoch, self.first, self.count, self.boot_id.hex(), self.first_ms, self.last_ms, payload
        )


def pack(block: Block, segment: int, before: int, follows: int) -> bytes:
    """Return a block as it stands in the segment, without padding."""
    header = _FIELDS.pack(
        MAGIC,
        segment,
        block.epoch,
        block.first,
        block.count,
        len(block.payload),
        block.first_ms,
        block.last_ms,
        bytes.fromhex(block.boot_id),
        before,
        follows,
        checksum(block.payload),
    )
    return b"".join((header, _CRC.pack(checksum(header)), block.payload))


def parse_header(data: bytes, offset: int, segment: int) -> Header | None:
    """Return the header that stands at `offset`, or None when there is none of this segment's present life."""
    if not data.startswith(MAGIC, offset) or len(data) - offset < HEADER_SIZE:
        return None
    fields = _FIELDS.unpack_from(data, offset)
    (crc,) = _CRC.unpack_from(data, offset + _FIELDS.size)
    header = Header(*fields[1:])
    if header.segment != segment or checksum(data[offset : offset + _FIELDS.size]) != crc:
        return None
    fits = 1 <= header.count <= MAXIMUM_BLOCK_RECORDS and 1 <= header.length <= MAXIMUM_PAYLOAD
    return header if fits and header.follows <= header.before else None


def is_trace(data: bytes, offset: int, segment: int) -> bool:
    """Say whether what stands at `offset` once was a header of this segment's present life, though it is none now."""
    if len(data) - offset < HEADER_SIZE or parse_header(data, offset, segment) is not None:
        return False
    fields = _FIELDS.unpack_from(data, offset)
    if fields[1] == segment:
        return True
    # Our magic with a number that is not ours: an older life's whole header is no trace, a broken one may be ours.
    return bool(fields[0] == MAGIC and parse_header(data, offset, fields[1]) is None)


def checksum(data: bytes) -> int:
    """Return the crc32 of the bytes."""
    return zlib.crc32(data)


def align(offset: int) -> int:
    """Return the first sector's boundary at or after `offset`."""
    return -(-offset // SECTOR) * SECTOR
