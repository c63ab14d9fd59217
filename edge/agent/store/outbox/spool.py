"""Memory to disk, and what must give way: the part of the outbox that touches files.

Every method needs the lock of the files; what is in memory is touched under the lock of the memory, briefly, so that
whoever puts a record never waits for a disk he did not ask for.
"""

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from edge.agent.store.disk import Disk
from edge.agent.store.outbox.gap_notes import GapNotes
from edge.agent.store.outbox.lane import Lane
from edge.agent.store.outbox.reader import Found, Lost, LostRange
from edge.model.records import Block, GapReason, gap_to_record

_log = logging.getLogger(__name__)
PERSIST_SECONDS: Final = 30.0
"""How long an acknowledgement may be known in memory only: a power cut sends again what it covered."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LEAST_SEGMENTS: Final = 2


class Spool:
    """See the module."""

    def __init__(  # noqa: PLR0913 - what the outbox is made of
        self,
        disk: Disk,
        folder: Path,
        lanes: Mapping[str, Lane],
        *,
        gaps: Lane,
        lock: threading.Lock,
        monotonic: Callable[[], float],
        free_floor: int,
    ) -> None:
        """`lanes` by name, the least important last; `gaps` is the one that tells of losses."""
        self._disk = disk
        self._folder = folder
        self._lanes = lanes
        self._gaps = gaps
        self._lock = lock
        self._monotonic = monotonic
        self._free_floor = free_floor
        self._is_making_room = False
        self.notes = GapNotes()

    def spill(self, lane: Lane, before_ms: int | None = None) -> bool:
        """Write what was put before a time (None: everything) to the disk; False when the disk does not take it."""
        while True:
            with self._lock:
                items = lane.ring.to_write(before_ms)
            if not items:
                return True
            blocks = [lane.ring.block_of(item, hurried=lane.is_critical) for item in items]
            done = 0
            try:
                while done < len(items):
                    self._have_room(lane, blocks[done])
                    places = lane.log.append(blocks[done:])
                    with self._lock:
                        lane.written(items[done : done + len(places)], places, self._monotonic())
                    done += len(places)
            except OSError as error:
                with self._lock:
                    lane.not_written(items[done:])
                if error.errno in _FULL and self._make_room(lane):
                    continue
                self._failed(lane, error)
                return False
            self._keep_gaps_small(lane)

    def tell_gaps(self) -> bool:
        """Write the gaps that were noted; False when the disk does not take them. They can be sent in any case."""
        with self._lock:
            at_ms = int(self._monotonic() * 1000)
            for gap in self.notes.take():
                self._gaps.ring.add(gap_to_record(gap, at_ms), 1, at_ms)
            self._gaps.ring.seal()
        if not self._gaps.may_write(self._monotonic()):
            with self._lock:
                return not any(item.place is None for item in self._gaps.ring.items.values())
        return self.spill(self._gaps)

    def tell_the_past(self, lane: Lane, open_epochs: Sequence[int]) -> None:
        """Note what the log's end lacks: `open_epochs` ended without writing what they had in memory."""
        log = lane.log
        if open_epochs:
            lane.torn = log.end.segment, open_epochs[-1]
            with contextlib.suppress(OSError):
                log.harden()
        for lost in log.lost:
            self.lose(lane, lost, GapReason.DAMAGED)
        for lost in log.torn:
            self.lose(lane, lost, GapReason.POWER_CUT if open_epochs else GapReason.DAMAGED)
        # A critical record that was put is on the disk; a trace is one that nobody knows whether it was.
        unsure = log.torn_epochs(open_epochs) if lane.is_critical else open_epochs
        with self._lock:
            for epoch in unsure:
                self.notes.note(lane.gap(log.open_range(epoch), GapReason.POWER_CUT))

    def persist(self, lane: Lane) -> bool:
        """Put a lane's cursor on the disk and let its settled segments go."""
        if self.notes and not self.tell_gaps():
            return False
        with self._lock:
            lane.persist_at = None
        try:
            lane.log.persist()
            lane.log.release()
        except OSError as error:
            with self._lock:
                lane.persist_at = self._monotonic() + PERSIST_SECONDS
            _log.warning("outbox: cannot write the cursor of %s: %s", lane.stream.name, error.strerror)
            return False
        return True

    def evict(self, lane: Lane, reason: GapReason, *, keep: bool) -> bool:
        """Drop the lane's oldest segment, its gap first; False when that cannot be.

        `keep`: the segment is used again by the lane itself; otherwise its space is anybody's.
        """
        oldest = lane.log.oldest_segment()
        if oldest is None:
            return False
        ranges, place = oldest
        with self._lock:
            for one in ranges:
                self.notes.note(lane.gap(one, reason))
        if ranges and not self.tell_gaps():
            return False
        with self._lock:
            lane.log.pass_over(place)
            lane.again = {key: one for key, one in lane.again.items() if one.after.at > place.after.at}
        if not self.persist(lane):
            return False
        if not keep:
            lane.log.segments.keep_spares(0)
        return True

    def next_backlog(self, lane: Lane) -> Block | None:
        """Return the oldest block on the disk that nobody has, and note that the drain has it."""
        while lane.again:
            with self._lock:
                key = min(lane.again)
                place = lane.again.pop(key)
            found = lane.log.read_at(place)
            if found is not None:
                with self._lock:
                    lane.fly(key, place)
                return found[0].block(lane.stream.name, found[1])
            if lane.log.has(place):
                first, last = key[1], place.after.last
                self.lose(lane, Lost((LostRange(key[0], first, last, "", 0, 0),), place))
        while (step := lane.log.read_next()) is not None:
            if isinstance(step, Lost):
                self.lose(lane, step)
                continue
            if self._take(lane, step):
                return step.header.block(lane.stream.name, step.payload)
        lane.log.segments.stop_reading()
        return None

    def lose(self, lane: Lane, lost: Lost, reason: GapReason | None = None) -> None:
        """Tell of a loss on the disk, then settle it."""
        reason = reason or lane.reason_of(lost)
        with self._lock:
            for one in lost.ranges:
                self.notes.note(lane.gap(one, reason))
            lane.damaged += bool(lost.ranges) and reason is GapReason.DAMAGED
        if lost.ranges:
            self.tell_gaps()
        with self._lock:
            lane.log.settled.settle(lost.place)
            lane.note_settled(self._monotonic() + PERSIST_SECONDS)

    def _take(self, lane: Lane, found: Found) -> bool:
        key = (found.header.epoch, found.header.first)
        with self._lock:
            if lane.log.settled.holds(found.place.start, found.place.after.at):
                return False
            if key in lane.under_way or key in lane.again:
                return False
            lane.fly(key, found.place)
            return True

    def _have_room(self, lane: Lane, block: Block) -> None:
        """Keep to the lane's share of the disk and to the space that is everybody's, before a segment is begun."""
        if lane is self._gaps or not lane.log.needs_file(block):
            return
        size = lane.log.segments.size
        share = max(_LEAST_SEGMENTS, lane.stream.most_bytes // size)
        while lane.log.segments.files >= share and not lane.log.segments.has_spare():
            if not self.evict(lane, GapReason.CAPACITY, keep=True):
                break
        while not lane.log.segments.has_spare() and self._disk.free_bytes(self._folder) < self._free_floor + size:
            if not self._make_room(lane):
                raise OSError(errno.ENOSPC, "the space that is kept free for others is reached")

    def _make_room(self, lane: Lane) -> bool:
        """Drop a segment of the least important lane that has one to drop."""
        if self._is_making_room:
            # Telling the gap needs space itself, and there is none.
            return False
        self._is_making_room = True
        try:
            return self._drop_least_important(lane)
        finally:
            self._is_making_room = False

    def _drop_least_important(self, lane: Lane) -> bool:
        for other in reversed(list(self._lanes.values())):
            if other.log.segments.has_spare() and other is not lane:
                other.log.segments.keep_spares(0)
                if not other.log.segments.has_spare():
                    return True
            if other.stream.rank >= lane.stream.rank and self.evict(other, GapReason.NO_SPACE, keep=other is lane):
                return True
        return False

    def _keep_gaps_small(self, lane: Lane) -> None:
        # The gap that tells of lost gaps has to be written first, so this lane's share is kept afterwards.
        share = max(_LEAST_SEGMENTS, lane.stream.most_bytes // lane.log.segments.size)
        while lane is self._gaps and len(lane.log.segments.numbers) > share:
            if not self.evict(lane, GapReason.CAPACITY, keep=True):
                return

    def _failed(self, lane: Lane, error: OSError) -> None:
        reason = GapReason.NO_SPACE if error.errno in _FULL else GapReason.WRITE_FAILED
        if not lane.problem:
            _log.error("outbox: the disk takes no %s: %s; they wait in memory", lane.stream.name, error.strerror)
        with self._lock:
            lane.failed(error.strerror or str(error), reason, self._monotonic())
