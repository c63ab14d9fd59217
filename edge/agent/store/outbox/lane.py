"""One stream of the outbox: its memory, its log, and who has which of its blocks.

Two locks guard a lane, both the outbox's: the lock of the memory (everything here), and the lock of the files (the log,
except for what is settled). Methods here do no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.agent.store.outbox.reader import Lost, LostRange
from edge.agent.store.outbox.ring import Item, Ring
from edge.agent.store.outbox.settled import Place
from edge.agent.store.outbox.stream_log import StreamLog
from edge.model.records import Block, Gap, GapReason, Promise, Stream

RING_BYTES: Final = 1024 * 1024
"""What a stream may take of the memory."""
COPY_BYTES: Final = 128 * 1024
"""Critical blocks on the disk that are kept in memory as well, so that they are sent without reading."""
LINGER_SECONDS: Final = 10.0
"""How long records wait at most for the disk so that a sector holds something, when few come."""
FILL_BYTES: Final = 16 * 1024
"""What is worth a sync: below it a file system's own writes around a sync would be more than ours."""
_FIRST_RETRY_SECONDS: Final = 1.0
_LAST_RETRY_SECONDS: Final = 60.0

Key = tuple[int, int]
"""A block's epoch and first record."""


@dataclass(slots=True)
class Flight:
    """A block that was handed out."""

    place: Place | None


class Lane:
    """See the module.

    Attributes:
        under_way: Blocks that were handed out and are neither acknowledged nor returned.
        again: Blocks on the disk that were returned.
        persist_at: When the cursor is to be written; None: it need not be.
        retry_at: When the disk is to be tried again; None: it takes what it is given.
        torn: The segment and the epoch in which a power cut may have left a write in part; 0 when there was none.
        waited: How old a record was at most when it was written last, in seconds.
    """

    def __init__(self, stream: Stream, ring: Ring, log: StreamLog, window: float) -> None:
        self.stream = stream
        self.ring = ring
        self.log = log
        self.under_way: dict[Key, Flight] = {}
        self.again: dict[Key, Place] = {}
        self.gaps = 0
        self.damaged = 0
        self.problem = ""
        self.persist_at: float | None = None
        self.retry_at: float | None = None
        self.torn = (0, 0)
        self.waited = window
        self.reason = GapReason.CAPACITY
        self._window = window
        self._retry_seconds = _FIRST_RETRY_SECONDS

    @property
    def is_critical(self) -> bool:
        """Its records are on the disk before they count as put."""
        return self.stream.promise is Promise.CRITICAL

    def spill_at(self) -> float | None:
        """Return when memory is to be written to the disk, in monotonic seconds; None: there is nothing to write."""
        oldest = self.ring.oldest_ms
        if oldest is None:
            return None
        if self.retry_at is not None:
            return self.retry_at
        if self.is_critical:
            return oldest / 1000
        worth_it = self.ring.fill >= FILL_BYTES
        return oldest / 1000 + (self._window if worth_it else max(self._window, LINGER_SECONDS))

    def may_write(self, now: float) -> bool:
        """Say whether the disk may be tried."""
        return self.retry_at is None or now >= self.retry_at

    def failed(self, problem: str, reason: GapReason, now: float) -> None:
        """Note that the disk took nothing; it is tried again later, and later each time."""
        self.problem, self.reason = problem, reason
        self.retry_at = now + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, _LAST_RETRY_SECONDS)

    def written(self, items: Sequence[Item], places: Sequence[Place], now: float) -> None:
        """Note where items are on the disk."""
        self.problem, self.retry_at, self._retry_seconds = "", None, _FIRST_RETRY_SECONDS
        self.waited = max(self._window, now - items[0].first_ms / 1000)
        for item, place in zip(items, places, strict=True):
            item.writing, item.place = False, place
            self.ring.note_size(item)
            if item.acknowledged:
                self.log.settled.settle(place)
                self.ring.remove(item)
            elif item.handed:
                self.under_way[self._key_of(item)] = Flight(place)
                self.ring.remove(item)
            elif not self.is_critical:
                self.ring.remove(item)
        # What is here although it is on the disk is never more than the ring, whose size is at hand.
        while self.ring.size > COPY_BYTES and (copy := self.ring.oldest_copy()) is not None:
            self.ring.remove(copy)

    def not_written(self, items: Sequence[Item]) -> None:
        """Note that the disk did not take items."""
        for item in items:
            item.writing = False
            self.ring.note_size(item)
            if item.acknowledged:
                self.ring.remove(item)

    def trim(self, most_bytes: int) -> list[Gap]:
        """Forget the oldest that are in memory until they take no more than that; return the gaps to tell."""
        gaps = []
        while self.ring.size > most_bytes and (item := self.ring.oldest_droppable()) is not None:
            self.ring.remove(item)
            if item.place is None:
                self.under_way.pop(self._key_of(item), None)
                ring = self.ring
                lost = LostRange(ring.epoch, item.first, item.last, ring.boot_id, item.first_ms, item.last_ms)
                gaps.append(self.gap(lost, self.reason))
        return gaps

    def hand_out(self, item: Item) -> None:
        """Note that the drain has an item."""
        item.handed = True
        self.under_way[self._key_of(item)] = Flight(item.place)
        if item.place is not None:
            self.ring.remove(item)

    def acknowledged(self, block: Block) -> Place | None:
        """Forget a block; return its place when it was on the disk."""
        key = (block.epoch, block.first)
        flight = self.under_way.pop(key, None)
        place = flight.place if flight is not None else self.again.pop(key, None)
        item = self.ring.items.get(block.first) if block.epoch == self.ring.epoch else None
        if item is not None and item.writing:
            item.acknowledged = True
        elif item is not None:
            place = place or item.place
            self.ring.remove(item)
        if place is not None:
            self.log.settled.settle(place)
        return place

    def returned(self, key: Key) -> None:
        """Let a block that was handed out be handed out again."""
        flight = self.under_way.pop(key, None)
        if flight is None:
            return
        item = self.ring.items.get(key[1]) if key[0] == self.ring.epoch else None
        if item is not None:
            item.handed = False
        elif flight.place is not None:
            self.again[key] = flight.place

    def fly(self, key: Key, place: Place) -> None:
        """Note that the drain has a block that was read from the disk."""
        self.under_way[key] = Flight(place)
        copy = self.ring.items.get(key[1]) if key[0] == self.ring.epoch else None
        if copy is not None and copy.place is not None:
            self.ring.remove(copy)

    def note_settled(self, at: float) -> None:
        """Have the cursor written: at that time, or at once when that lets a segment go."""
        if self.log.has_settled_segment:
            self.persist_at = 0.0
        elif self.persist_at is None:
            self.persist_at = at

    def reason_of(self, lost: Lost) -> GapReason:
        """Return why something that was read is lost: the last write before a power cut, or damage."""
        segment, epoch = self.torn
        is_torn = lost.place.after.segment == segment and any(one.epoch == epoch for one in lost.ranges)
        return GapReason.POWER_CUT if is_torn else GapReason.DAMAGED

    def gap(self, lost: LostRange, reason: GapReason) -> Gap:
        """Return the gap that tells of lost records."""
        self.gaps += 1
        return Gap(
            self.stream.name, lost.epoch, lost.first, lost.last, lost.first_ms, lost.last_ms, lost.boot_id, reason
        )

    def _key_of(self, item: Item) -> Key:
        return self.ring.epoch, item.first
