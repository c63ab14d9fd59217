"""Records wait here until the broker has them: on the disk when they matter or the link is away, in memory otherwise.

See `docs/telemetry.md` for what is promised. One thread of its own (the spooler) writes what has waited long enough; it
sleeps until then. Two locks: the memory's, held briefly, and the files', held while the disk works. Whoever has both
took the files' first.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from edge.agent.store.disk import Disk, RealDisk, make_folders
from edge.agent.store.outbox.epochs import Epochs
from edge.agent.store.outbox.facts import StreamFacts
from edge.agent.store.outbox.lane import RING_BYTES, Lane
from edge.agent.store.outbox.latest import Latest
from edge.agent.store.outbox.ring import Item, Ring
from edge.agent.store.outbox.segments import SEGMENT_SIZE
from edge.agent.store.outbox.spool import PERSIST_SECONDS, Spool
from edge.agent.store.outbox.stream_log import StreamLog
from edge.errors import InvalidInputError, StoreError
from edge.model.records import (
    GAPS,
    MAXIMUM_BLOCK,
    MAXIMUM_BLOCK_RECORDS,
    Block,
    Promise,
    Stream,
    join_records,
)

_log = logging.getLogger(__name__)
FREE_FLOOR_BYTES: Final = 256 * 1024 * 1024
"""Space of the file system that is left to others."""


def _nothing() -> None:
    return


class Outbox:
    """See the module. May be called from any thread.

    Attributes:
        changed: Called, on the thread that caused it and without a lock, when there may be more to hand out or
            `next_due` has changed. It must not block.
        epoch: This start's number.
    """

    def __init__(  # noqa: PLR0913 - what a device sets
        self,
        folder: Path,
        streams: Iterable[Stream],
        boot_id: str,
        monotonic: Callable[[], float],
        *,
        window_seconds: float = 1.0,
        free_floor_bytes: int = FREE_FLOOR_BYTES,
        disk: Disk | None = None,
        segment_size: int = SEGMENT_SIZE,
        spooler: bool = True,
    ) -> None:
        """Open the folder, whatever is left in it.

        Args:
            folder: Made when it is not there.
            streams: One named `gaps` is added when it is not among them.
            boot_id: 32 hexadecimal digits.
            monotonic: Seconds since that boot.
            window_seconds: How long NORMAL records wait for an acknowledgement before they are written, when as many
                come as are worth a write; with fewer, up to 10 s.
            free_floor_bytes: How much of the file system is left to others.
            disk: Where tests stand.
            segment_size: How large a file is.
            spooler: Have a thread; without one somebody calls `run_due`.
        """
        self._disk: Disk = disk or RealDisk()
        self._monotonic = monotonic
        self._window = window_seconds
        self._lock = threading.Lock()
        self._files = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._news = threading.Condition(self._lock)
        self._news_count = self._news_seen = 0
        self._sleeps_until: float | None = 0.0
        self._is_closed = False
        self.changed: Callable[[], None] = _nothing
        kept, latest = _in_order(streams)
        with contextlib.suppress(OSError):
            # What cannot be made now is tried again with every write, and told then.
            make_folders(self._disk, folder)
        logs = {one.name: StreamLog(self._disk, folder / one.name, segment_size) for one in kept}
        seen = max(log.highest_epoch for log in logs.values())
        self._epochs = Epochs(self._disk, folder, seen, monotonic)
        self.epoch = self._epochs.epoch
        self._lanes = {
            one.name: Lane(
                one,
                # Two blocks fit into a segment, however small a test makes it.
                Ring(one.name, self.epoch, boot_id, min(MAXIMUM_BLOCK, segment_size // 3)),
                logs[one.name],
                window_seconds,
            )
            for one in kept
        }
        self._latest = {one.name: Latest(one, self.epoch, boot_id) for one in latest}
        self._spool = Spool(
            self._disk,
            folder,
            self._lanes,
            gaps=self._lanes[GAPS.name],
            lock=self._lock,
            monotonic=monotonic,
            free_floor=free_floor_bytes,
        )
        self._account_for_the_past()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True) if spooler else None
        if self._thread is not None:
            self._thread.start()

    def put(self, stream: str, records: Sequence[bytes]) -> None:
        """Take records, each one JSON object without a newline, at most 64 KiB; all of them or none.

        Never waits for the network. CRITICAL: they are on the disk when this returns; when the disk takes nothing they
        are in memory, and `facts` says so. NORMAL: they are in memory; only when that is full this waits for the disk.

        Raises:
            InvalidInputError: One of them is not a record, or there is no such stream.
            StoreError: The outbox is closed.
        """
        lane = self._lane(stream)
        joined = join_records(records)
        now = self._monotonic()
        with self._lock:
            began = lane.ring.is_empty
            _add(lane.ring, records, joined, int(now * 1000))
            if lane.is_critical:
                lane.ring.seal()
            has_block = lane.ring.next_to_send() is not None
            is_full = lane.ring.size > RING_BYTES
        if lane.is_critical or is_full:
            self._write_now(lane, now)
        self._told(began or has_block)

    def put_latest(self, stream: str, key: str, record: bytes) -> None:
        """Take the newest record of a key; one of the same key that was not sent yet goes.

        Raises:
            InvalidInputError: It is not a record, or there is no such stream.
        """
        latest = self._latest.get(stream)
        if latest is None:
            raise InvalidInputError(f"there is no stream {stream!r} that keeps only the newest records")
        join_records([record])
        with self._lock:
            began = latest.since_ms is None
            latest.put(key, record, int(self._monotonic() * 1000))
        self._told(began)

    def next_live(self) -> Block | None:
        """Hand out the next block that is not a backlog, most important streams first; None: nothing is due.

        Each block is handed out once; whoever has it says `acknowledged` or `returned`.
        """
        now = self._monotonic()
        with self._lock:
            for lane in self._lanes.values():
                item = self._due_item(lane, now)
                if item is not None:
                    lane.hand_out(item)
                    break
            else:
                return self._next_latest(now)
        block = lane.ring.block_of(item)
        with self._lock:
            lane.ring.note_size(item)
        return block

    def next_backlog(self) -> Block | None:
        """Hand out the oldest block on the disk that nobody has, most important streams first; None: there is none."""
        with self._files:
            for lane in () if self._is_closed else self._lanes.values():
                block = self._spool.next_backlog(lane)
                if block is not None:
                    return block
        return None

    def acknowledged(self, block: Block) -> None:
        """Forget a block: the broker has it. One that nobody was handed is passed over.

        After a restart it comes again if an older one of its stream was not acknowledged, and after a power cut if this
        was within the last 30 s: whoever receives it knows it by its epoch and numbers.
        """
        with self._lock:
            if block.stream in self._latest:
                self._latest[block.stream].acknowledged(block.first)
                return
            lane = self._lanes.get(block.stream)
            if lane is None or lane.acknowledged(block) is None:
                return
            lane.note_settled(self._monotonic() + PERSIST_SECONDS)
            self._wake_spooler(lane.persist_at)

    def returned(self, block: Block) -> None:
        """Let a block be handed out again: it was not sent, or its acknowledgement cannot come any more."""
        with self._lock:
            if block.stream in self._latest:
                self._latest[block.stream].returned(block.first)
            elif block.stream in self._lanes:
                self._lanes[block.stream].returned((block.epoch, block.first))
        self._told(told=True)

    def returned_all(self) -> None:
        """Let everything that was handed out and not acknowledged be handed out again: the connection was lost."""
        with self._lock:
            for latest in self._latest.values():
                latest.returned_all()
            for lane in self._lanes.values():
                for key in list(lane.under_way):
                    lane.returned(key)
        self._told(told=True)

    def next_due(self) -> float | None:
        """Return when `next_live` will have something though nothing more is put, in monotonic seconds; None: never."""
        with self._lock:
            if any(lane.ring.next_to_send() is not None for lane in self._lanes.values()):
                return self._monotonic()
            since = [lane.ring.gathering_since for lane in self._lanes.values()]
            since += [latest.since_ms for latest in self._latest.values()]
            return min((one / 1000 + self._linger for one in since if one is not None), default=None)

    def wait(self, timeout: float) -> None:
        """Sleep until there may be more to hand out than at the last call, `next_due` comes, or the time is over."""
        due = self.next_due()
        seconds = timeout if due is None else min(timeout, max(0.0, due - self._monotonic()))
        with self._lock:
            self._news.wait_for(lambda: self._news_count != self._news_seen, seconds)
            self._news_seen = self._news_count

    def flush(self) -> None:
        """Put everything in memory on the disk now: the agent stops, or the system shuts down."""
        with self._files:
            self._spool.tell_gaps()
            for lane in self._lanes.values():
                self._spool.spill(lane)

    def facts(self) -> tuple[StreamFacts, ...]:
        """Return how every stream stands, most important first."""
        with self._files:
            kept = [self._facts_of(lane) for lane in self._lanes.values()]
        with self._lock:
            latest = [
                StreamFacts(one.stream.name, one.records, one.size, None, one.since_ms, 0, 0, "", 0.0)
                for one in self._latest.values()
            ]
        return (*kept, *latest)

    def run_due(self) -> float | None:
        """Do what is due, and return when something will be, in monotonic seconds: the spooler's work."""
        with self._files:
            if not self._is_closed:
                self._do_due(self._monotonic())
        with self._lock:
            return self._next_work()

    def close(self) -> None:
        """Put everything on the disk, and end. What cannot be written is lost, and the next start tells so."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        with self._files:
            for lane in self._lanes.values():
                if not lane.log.is_persisted:
                    self._spool.persist(lane)
            if all(lane.ring.oldest_ms is None for lane in self._lanes.values()) and not self._spool.notes:
                self._epochs.account(self.epoch)
            self._epochs.close()
            for lane in self._lanes.values():
                lane.log.close()

    @property
    def _linger(self) -> float:
        # Half of the window is left for the broker's answer: what it acknowledges in time is never written.
        return self._window / 2

    def _lane(self, stream: str) -> Lane:
        if self._is_closed:
            raise StoreError("the outbox is closed")
        lane = self._lanes.get(stream)
        if lane is None:
            raise InvalidInputError(f"there is no stream {stream!r} to put records into")
        return lane

    def _write_now(self, lane: Lane, now: float) -> None:
        with self._files:
            if lane.may_write(now):
                self._spool.spill(lane)
            with self._lock:
                for gap in lane.trim(RING_BYTES):
                    self._spool.notes.note(gap)

    def _due_item(self, lane: Lane, now: float) -> Item | None:
        since = lane.ring.gathering_since
        if lane.ring.next_to_send() is None and since is not None and now >= since / 1000 + self._linger:
            lane.ring.seal()
        return lane.ring.next_to_send()

    def _next_latest(self, now: float) -> Block | None:
        for latest in self._latest.values():
            if latest.since_ms is not None and now >= latest.since_ms / 1000 + self._linger:
                return latest.take()
        return None

    def _account_for_the_past(self) -> None:
        """Tell what the last starts did not: what they had in memory, and what is not on the disk any more."""
        with self._files:
            for lane in self._lanes.values():
                self._spool.tell_the_past(lane, self._epochs.open)
            if self._spool.tell_gaps() and self._epochs.open:
                self._epochs.account(self._epochs.open[-1])

    def _told(self, told: bool) -> None:  # noqa: FBT001 - whether there is news
        if not told:
            return
        with self._lock:
            self._news_count += 1
            self._news.notify_all()
            self._wake_spooler(self._next_work())
        self.changed()

    def _wake_spooler(self, at: float | None) -> None:
        if at is not None and (self._sleeps_until is None or at < self._sleeps_until):
            self._wake.notify_all()

    def _next_work(self) -> float | None:
        """Return when the spooler has something to do, in monotonic seconds."""
        times = [lane.spill_at() for lane in self._lanes.values()]
        times += [lane.persist_at for lane in self._lanes.values()]
        if self._spool.notes:
            times.append(self._lanes[GAPS.name].retry_at or 0.0)
        times.append(self._epochs.retry_at)
        return min((at for at in times if at is not None), default=None)

    def _do_due(self, now: float) -> None:
        self._epochs.retry(now)
        if self._spool.notes:
            self._spool.tell_gaps()
        for lane in self._lanes.values():
            spill_at = lane.spill_at()
            if spill_at is not None and spill_at <= now:
                is_late = lane.is_critical or lane.retry_at is not None
                self._spool.spill(lane, None if is_late else int((now - self._window) * 1000) + 1)
            if lane.persist_at is not None and lane.persist_at <= now:
                self._spool.persist(lane)

    def _run(self) -> None:
        while True:
            try:
                self.run_due()
            except Exception:  # noqa: BLE001 - the spooler must not end: what is in memory would stay there
                _log.exception("outbox: the spooler failed and goes on")
                time.sleep(1.0)
            with self._lock:
                if self._is_closed:
                    return
                due = self._next_work()
                seconds = None if due is None else due - self._monotonic()
                if seconds is None or seconds > 0:
                    self._sleeps_until = due
                    self._wake.wait(seconds)
                    self._sleeps_until = 0.0

    def _facts_of(self, lane: Lane) -> StreamFacts:
        oldest = lane.log.oldest() if lane.log.waiting else None
        with self._lock:
            ring = lane.ring
            boot_id, oldest_ms = (ring.boot_id, ring.oldest_ms) if ring.oldest_ms is not None else (None, None)
            if oldest is not None:
                boot_id, oldest_ms = oldest.boot_id.hex(), oldest.first_ms
            return StreamFacts(
                stream=lane.stream.name,
                records=lane.log.waiting + ring.records,
                bytes=lane.log.waiting_bytes + ring.size,
                oldest_boot_id=boot_id,
                oldest_ms=oldest_ms,
                gaps=lane.gaps,
                damaged=lane.damaged,
                problem=lane.problem,
                window_seconds=0.0 if lane.is_critical else lane.waited,
            )


def _in_order(streams: Iterable[Stream]) -> tuple[list[Stream], list[Stream]]:
    """Return the streams that are kept on the disk and those that are not, most important first."""
    ordered = sorted({one.name: one for one in (GAPS, *streams)}.values(), key=lambda one: one.rank)
    latest = [one for one in ordered if one.promise is Promise.LATEST]
    return [one for one in ordered if one not in latest], latest


def _add(ring: Ring, records: Sequence[bytes], joined: bytes, now_ms: int) -> None:
    """Add records as blocks' parts: all at once when they fit into one."""
    if len(records) <= MAXIMUM_BLOCK_RECORDS and len(joined) < ring.most_bytes:
        ring.add(joined, len(records), now_ms)
        return
    part: list[bytes] = []
    size = 0
    for record in records:
        if part and (len(part) == MAXIMUM_BLOCK_RECORDS or size + len(record) + 1 >= ring.most_bytes):
            ring.add(b"\n".join(part), len(part), now_ms)
            part, size = [], 0
        part.append(record)
        size += len(record) + 1
    ring.add(b"\n".join(part), len(part), now_ms)
