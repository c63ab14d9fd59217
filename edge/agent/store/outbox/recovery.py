"""Where a log ends after whatever happened: behind the last whole block of the last segment that has one."""

from dataclasses import dataclass

from edge.agent.store.outbox.layout import HEADER_SIZE, Header, align, checksum, is_trace
from edge.agent.store.outbox.reader import headers_in
from edge.agent.store.outbox.segments import Segments
from edge.agent.store.outbox.settled import Head


@dataclass(frozen=True, slots=True)
class Tail:
    """A log's last segment with a whole block.

    Attributes:
        segment: Its number; 0 when no segment has one.
        offset: Behind its last whole block.
        free: Where the next block may begin: behind the broken ones too, whose headers would hide what began in them.
        newest: The header of the block that was written last.
        broken: Headers behind it whose payload is not what was written: a write that the power cut, or damage.
        has_trace: Behind it stood a block whose header is damaged.
    """

    segment: int
    offset: int
    free: int
    newest: Header | None
    broken: tuple[Header, ...]
    has_trace: bool


def find_tail(segments: Segments, cursor: Head) -> Tail:
    """Read segments from the last one back until one has a whole block; those before the cursor do not count."""
    broken: list[Header] = []
    has_trace = False
    for number in reversed(segments.numbers):
        if number < cursor.segment:
            break
        data = segments.read(number, segments.size, 0)
        newest: Header | None = None
        offset = free = 0
        torn: list[Header] = []
        for header, at in headers_in(data, number):
            begin, end = at + HEADER_SIZE, at + header.size
            free = end
            if checksum(data[begin:end]) != header.payload_crc:
                torn.append(header)
                continue
            torn, offset = [], end
            if newest is None or header.before >= newest.before:
                newest = header
        broken[:0] = torn
        has_trace = has_trace or any(is_trace(data, at, number) for at in {offset, align(offset)})
        if newest is not None:
            return Tail(number, offset, free, newest, tuple(broken), has_trace)
    return Tail(0, 0, 0, None, tuple(broken), has_trace)
