"""Walks a log from a head on: each step is the next block, or what is lost before it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edge.agent.store.outbox.layout import HEADER_SIZE, MAGIC, Header, align, checksum, parse_header
from edge.agent.store.outbox.segments import Segments
from edge.agent.store.outbox.settled import Head, Place


@dataclass(frozen=True, slots=True)
class LostRange:
    """Records that are not to be had any more, with about when they were put; `last` None: to their epoch's end."""

    epoch: int
    first: int
    last: int | None
    boot_id: str
    first_ms: int
    last_ms: int

    @classmethod
    def of(cls, header: Header) -> "LostRange":
        """Return the range of a block whose header is known."""
        return cls(header.epoch, header.first, header.last, header.boot_id.hex(), header.first_ms, header.last_ms)


@dataclass(frozen=True, slots=True)
class Found:
    """A block; `payload` is empty when it was not asked for."""

    header: Header
    payload: bytes
    place: Place


@dataclass(frozen=True, slots=True)
class Lost:
    """A place whose records are lost; no ranges: nothing was, they stand elsewhere or nowhere."""

    ranges: tuple[LostRange, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of segments without reading them.

    Attributes:
        ends: Where the last block ends, by segment: nothing behind it counts.
        bases: How many records the log has before the segment's first block.
    """

    ends: dict[int, int]
    bases: dict[int, int]


class Reader:
    """See the module; `head` is where it stands, and may be set."""

    def __init__(self, segments: Segments, known: Known, head: Head) -> None:
        self._segments = segments
        self._known = known
        self.head = head

    def step(self, end: Head, *, payload: bool = True) -> Found | Lost | None:
        """Go on by a block or a loss; None at `end`, or when nothing more is to be found before it."""
        while self.head.at < end.at:
            head = self.head
            located = self._locate(head)
            if located is not None:
                return self._take(*located, payload=payload)
            following = self._segments.after(head.segment)
            if following is not None:
                self.head = replace(head, segment=following, offset=0)
                continue
            if head.offset >= self._known.ends.get(head.segment, 0):
                # Only writes that failed are between here and the end.
                return None
            self.head = end
            return Lost(ranges_between(head, end.at, end.epoch, end.last + 1, None), Place(head.at, end))
        return None

    def read_at(self, place: Place) -> tuple[Header, bytes] | None:
        """Return the block that begins at a place; None when it is gone or damaged."""
        number = place.after.segment
        if number not in self._segments.numbers:
            return None
        header = self._header_at(number, place.offset)
        if header is None or header.through != place.after.at:
            return None
        payload = self._payload_of(number, header, place.offset)
        return None if payload is None else (header, payload)

    def _take(self, header: Header, offset: int, *, payload: bool) -> Found | Lost:
        head, number = self.head, self.head.segment
        after = Head(header.through, number, offset + header.size, header.epoch, header.last)
        if header.follows > head.at:
            self.head = replace(head, at=header.follows, offset=offset)
            return Lost(
                ranges_between(head, header.follows, header.epoch, header.first, header), Place(head.at, self.head)
            )
        if (header.epoch, header.first) <= head.key:
            # Written once more, because nobody knew whether the first time had failed.
            self.head = replace(after, epoch=head.epoch, last=head.last)
            return Lost((), Place(head.at, self.head))
        self.head = after
        place = Place(head.at, after, offset)
        found = self._payload_of(number, header, offset) if payload else b""
        if found is None:
            return Lost((LostRange.of(header),), place)
        return Found(header, found, place)

    def _locate(self, head: Head) -> tuple[Header, int] | None:
        """Return the next header in the head's segment and where it is."""
        number = head.segment
        limit = self._known.ends.get(number)
        for offset in dict.fromkeys((head.offset, align(head.offset))):
            if limit is not None and offset >= limit:
                return None
            header = self._header_at(number, offset)
            if header is not None and header.through > head.at:
                self._known.bases.setdefault(number, header.follows)
                return header, offset
        if limit is None and self._next_begins_at(number) <= head.at:
            return None
        size = (limit or self._segments.size) - head.offset
        for header, at in headers_in(self._segments.read(number, size, head.offset), number):
            if header.through > head.at:
                self._known.bases.setdefault(number, header.follows)
                return header, head.offset + at
        return None

    def _next_begins_at(self, number: int) -> int:
        """Return how many records there are before the next segment; more than there can be when it cannot tell."""
        following = self._segments.after(number)
        if following is None:
            return 2**64
        if following not in self._known.bases:
            header = self._header_at(following, 0)
            if header is None:
                return 2**64
            self._known.bases[following] = header.follows
        return self._known.bases[following]

    def _header_at(self, number: int, offset: int) -> Header | None:
        return parse_header(self._segments.read(number, HEADER_SIZE, offset), 0, number)

    def _payload_of(self, number: int, header: Header, offset: int) -> bytes | None:
        payload = self._segments.read(number, header.length, offset + HEADER_SIZE)
        return payload if len(payload) == header.length and checksum(payload) == header.payload_crc else None


def headers_in(data: bytes, number: int) -> Iterator[tuple[Header, int]]:
    """Yield every header of the segment that stands in `data`, and where; not what looks like one inside a block."""
    at = data.find(MAGIC)
    while at >= 0:
        header = parse_header(data, at, number)
        if header is not None:
            yield header, at
        at = data.find(MAGIC, at + (1 if header is None else header.size))


def ranges_between(head: Head, at: int, epoch: int, first: int, header: Header | None) -> tuple[LostRange, ...]:
    """Return which records may be missing between a head and a block that begins with record `first` of `epoch`.

    `at` is how many records the log had before that block. A stream's records are not all on the disk (some were
    acknowledged before), so this is the most that can be missing.
    """
    boot_id, at_ms = (header.boot_id.hex(), header.first_ms) if header is not None else ("", 0)
    if head.epoch == epoch:
        return (LostRange(epoch, head.last + 1, first - 1, boot_id, at_ms, at_ms),) if first - 1 > head.last else ()
    is_of_one_epoch = at - head.at == first - 1
    before = (LostRange(head.epoch, head.last + 1, None, "", 0, 0),) if head.epoch and not is_of_one_epoch else ()
    return (*before, LostRange(epoch, 1, first - 1, boot_id, at_ms, at_ms)) if first > 1 else before
