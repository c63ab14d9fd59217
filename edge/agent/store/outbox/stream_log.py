"""One stream's log on the disk: blocks are added at its end, read from its head, and go when they are settled.

Opening reads the cursor, the folder's names and the last segment. A damaged block is passed over and told as `Lost`.
Not thread-safe; OSError passes through.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge.agent.store.disk import Disk
from edge.agent.store.outbox.layout import HEADER_SIZE, Header, align, pack, parse_header
from edge.agent.store.outbox.reader import Found, Known, Lost, LostRange, Reader, headers_in, ranges_between
from edge.agent.store.outbox.recovery import find_tail
from edge.agent.store.outbox.segments import SEGMENT_SIZE, Segments
from edge.agent.store.outbox.settled import Head, Place, Settled
from edge.agent.store.outbox.slots import Slots
from edge.model.records import Block

_CURSOR_NUMBERS: Final = 8


class StreamLog:
    """See the module.

    Attributes:
        settled: What is done with; the cursor is its beginning.
        end: After the last block.
        lost: What opening found to be missing at the log's end; the owner tells it, and settles it.
        torn: Blocks at the log's end that a power cut left in part; likewise.
        newest: The last block's header; None when the log never had one that is still there.
    """

    def __init__(self, disk: Disk, folder: Path, segment_size: int = SEGMENT_SIZE) -> None:
        self.folder = folder
        self._cursor_file = Slots(disk, folder / "cursor", _CURSOR_NUMBERS)
        self.segments = Segments(disk, folder, segment_size)
        self._known = Known({}, {})
        self._resumable = 0
        self.lost: list[Lost] = []
        self.torn: list[Lost] = []
        self._has_trace = False
        self.newest: Header | None = None
        stored = self._cursor_file.numbers
        self._persisted = self._beginning() if stored is None else Head(*stored[:5])
        self.settled = Settled(self._persisted)
        self.end: Head = self._persisted
        self._whole: Head = self._persisted
        self._follows: int = 0
        self._recover(self._persisted if stored is None else Head(stored[5], 0, 0, *stored[6:8]))
        self._reader = Reader(self.segments, self._known, self.settled.cursor)

    @property
    def highest_epoch(self) -> int:
        """The largest epoch of any record that is or was here."""
        return max(self.end.epoch, self.settled.cursor.epoch)

    @property
    def waiting(self) -> int:
        """How many records are on the disk and not settled; an upper bound after damage or a failed write."""
        return self.end.at - self.settled.cursor.at - self.settled.ahead

    @property
    def waiting_bytes(self) -> int:
        """About how many bytes of the disk they take."""
        cursor = self.settled.cursor
        if not self.waiting or not self.segments.numbers:
            return 0
        whole = sum(1 for number in self.segments.numbers if cursor.segment <= number < self.end.segment)
        begun = cursor.offset if cursor.segment in self.segments.numbers else 0
        return max(0, whole * self.segments.size + self.end.offset - begun)

    @property
    def is_persisted(self) -> bool:
        """The cursor on the disk is the one in memory."""
        return self._persisted.at == self.settled.cursor.at

    @property
    def has_settled_segment(self) -> bool:
        """The oldest segment may go."""
        self.advance()
        numbers = self.segments.numbers
        return bool(numbers) and numbers[0] < self.settled.cursor.segment and numbers[0] != self.segments.writing

    def append(self, blocks: Sequence[Block]) -> list[Place]:
        """Put as many blocks as fit into one segment on the disk, at least one, and return where they are.

        On OSError none of them is: the segment is unknown from here on and not written again.
        """
        self._prepare(align(HEADER_SIZE + len(blocks[0].payload)))
        number, start = self.segments.writing, align(self.end.offset)
        parts: list[bytes] = []
        places: list[Place] = []
        offset, before, follows = start, self.end.at, self._follows
        for block in blocks:
            data = pack(block, number, before, follows)
            if offset + len(data) > self.segments.size:
                break
            offset, through = offset + len(data), before + block.count
            parts.append(data)
            places.append(Place(before, Head(through, number, offset, block.epoch, block.last), offset - len(data)))
            before = follows = through
        data = b"".join(parts)
        try:
            self.segments.write(data.ljust(align(len(data)), b"\0"), start)
        except OSError:
            self._abandon(before)
            raise
        self._known.bases.setdefault(number, self.end.at)
        self.end = places[-1].after
        self._follows = self.end.at
        self._known.ends[number] = self.end.offset
        self.newest = parse_header(parts[-1], 0, number)
        return places

    def harden(self) -> None:
        """Make sure of what was found at the log's end, when whoever wrote it did not close it."""
        if self._resumable:
            self.segments.harden(self._resumable)

    def torn_epochs(self, open_epochs: Sequence[int]) -> Sequence[int]:
        """Return which of the epochs may have put a block of which only a trace is left: the last, or none."""
        return open_epochs[-1:] or (self.end.epoch,) if self._has_trace else ()

    def open_range(self, epoch: int) -> LostRange:
        """Return the records of an epoch after the last one that is known, to its end."""
        known, newest = self._whole, self.newest
        if known.epoch != epoch:
            return LostRange(epoch, 1, None, "", 0, 0)
        boot_id, at_ms = ("", 0) if newest is None else (newest.boot_id.hex(), newest.last_ms)
        return LostRange(epoch, known.last + 1, None, boot_id, at_ms, at_ms)

    def read_next(self) -> Found | Lost | None:
        """Return the next block, or what is lost before it; None at the end."""
        if self._reader.head.at < self.settled.cursor.at:
            # What was acknowledged without being read from here may be gone, and is not lost.
            self._reader.head = self.settled.cursor
        return self._reader.step(self.end)

    def read_at(self, place: Place) -> tuple[Header, bytes] | None:
        """Return a block that was read or added before, or None when it is gone or damaged."""
        return self._reader.read_at(place)

    def oldest(self) -> Header | None:
        """Return the header of the oldest block that is not settled; None when there is none."""
        reader = Reader(self.segments, self._known, self.settled.cursor)
        while isinstance(found := reader.step(self.end, payload=False), Found | Lost):
            if isinstance(found, Found) and not self.settled.holds(found.place.start, found.place.after.at):
                return found.header
        return None

    def persist(self) -> None:
        """Put the cursor on the disk; then what is before it may go."""
        self.advance()
        cursor, end = self.settled.cursor, self.end
        self._cursor_file.store(
            cursor.at, cursor.segment, cursor.offset, cursor.epoch, cursor.last, end.at, end.epoch, end.last
        )
        self._persisted = cursor

    def release(self) -> None:
        """Let go of the segments before the cursor on the disk."""
        self.segments.release(self._persisted.segment)
        for known in (self._known.ends, self._known.bases):
            for number in [one for one in known if one < self._persisted.segment and one != self.segments.writing]:
                del known[number]

    def advance(self) -> None:
        """Let the cursor stand in the next segment when nothing is left of its own."""
        while (following := self.segments.after(self.settled.cursor.segment)) is not None:
            base = self._known.bases.get(following)
            if base is None or not self.settled.enter(following, base):
                return

    def needs_file(self, block: Block) -> bool:
        """Say whether adding the block begins a segment."""
        if not self.segments.writing and not self._resumable:
            return True
        return self.segments.size - align(self.end.offset) < align(HEADER_SIZE + len(block.payload))

    def has(self, place: Place) -> bool:
        """Say whether the segment of a block is there."""
        return place.after.segment in self.segments.numbers

    def oldest_segment(self) -> tuple[list[LostRange], Place] | None:
        """Return what of the oldest segment is not settled, and all of it as a place; None: it is written to.

        To drop it: tell the ranges, settle the place, persist, release.
        """
        self.advance()
        cursor = self.settled.cursor
        number = next((one for one in self.segments.numbers if one >= cursor.segment), None)
        following = self.segments.after(number) if number is not None else None
        if number is None or following is None or number == self.segments.writing:
            return None
        reader = Reader(self.segments, self._known, cursor)
        ranges: dict[int, LostRange] = {}
        while True:
            head = reader.head
            found = reader.step(self.end, payload=False)
            if found is None or (isinstance(found, Found) and found.place.after.segment > number):
                break
            if isinstance(found, Found):
                if not self.settled.holds(found.place.start, found.place.after.at):
                    _widen(ranges, LostRange.of(found.header))
            else:
                for one in found.ranges:
                    _widen(ranges, one)
        return list(ranges.values()), Place(cursor.at, replace(head, segment=following, offset=0))

    def pass_over(self, place: Place) -> None:
        """Settle a place that was dropped, and read on behind it."""
        self.settled.settle(place)
        if self._reader.head.at < place.after.at or self._reader.head.segment < place.after.segment:
            self._reader.head = place.after

    def close(self) -> None:
        """Give all handles back."""
        self.segments.close()
        self._cursor_file.close()

    def _prepare(self, size: int) -> None:
        """Have a segment to write to that has room."""
        if self._resumable:
            number, self._resumable = self._resumable, 0
            self.segments.go_on(number)
        if not self.segments.writing or self.segments.size - align(self.end.offset) < size:
            number = self.segments.begin()
            self.end = replace(self.end, segment=number, offset=0)
            self._known.ends[number] = 0

    def _abandon(self, through: int) -> None:
        """Leave the segment: what of the write is on the disk is unknown, so its count is not used again."""
        self.segments.abandon()
        lost = Place(self.end.at, replace(self.end, at=through))
        self.end = lost.after
        self.settled.settle(lost)

    def _recover(self, stored_end: Head) -> None:
        cursor = self.settled.cursor
        tail = find_tail(self.segments, cursor)
        self.newest = tail.newest
        self.segments.recover(cursor.segment, tail.segment)
        self.end = cursor
        if tail.newest is not None:
            found = Head(tail.newest.through, tail.segment, tail.offset, tail.newest.epoch, tail.newest.last)
            self.end = replace(max(found, cursor), segment=tail.segment, offset=tail.free)
            self._known.ends[tail.segment] = tail.offset
            self._resumable = tail.segment
        self._follows = self.end.at
        self._whole = self.end
        for broken in tail.broken:
            # Never known to be on the disk: what follows does not count on it.
            if broken.through > self.end.at:
                self.torn.append(self._lose((LostRange.of(broken),), broken.through, broken.epoch, broken.last))
        if stored_end.at > self.end.at:
            # It was on the disk when the cursor was written.
            ranges = ranges_between(self.end, stored_end.at, stored_end.epoch, stored_end.last + 1, self.newest)
            self.lost.append(self._lose(ranges, stored_end.at, stored_end.epoch, stored_end.last))
            self._follows = self.end.at
        self._has_trace = tail.has_trace and not self.lost

    def _lose(self, ranges: tuple[LostRange, ...], at: int, epoch: int, last: int) -> Lost:
        before = self.end
        self.end = replace(before, at=at, epoch=epoch, last=last)
        return Lost(ranges, Place(before.at, self.end))

    def _beginning(self) -> Head:
        """Return where to begin without a cursor: nothing is settled, or, when it is damaged, at the oldest block."""
        if not self._cursor_file.damaged:
            return Head()
        for number in self.segments.numbers:
            header = next(
                (one for one, _ in headers_in(self.segments.read(number, self.segments.size, 0), number)), None
            )
            if header is not None:
                return Head(header.before, number)
        return Head()


def _widen(ranges: dict[int, LostRange], one: LostRange) -> None:
    """Let the range of an epoch reach over `one` as well."""
    old = ranges.setdefault(one.epoch, one)
    last = None if old.last is None or one.last is None else max(old.last, one.last)
    ranges[one.epoch] = replace(old, first=min(old.first, one.first), last=last, last_ms=max(old.last_ms, one.last_ms))
