"""Runs an outbox on a disk in memory, cuts the power after every call, and looks whether the promises were kept.

A run has several lives: each begins with one of the disks that the one before may have left, so that the calls of a
start after a power cut are cut as well.
"""

import json
import math
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.agent.store.outbox import Outbox
from edge.model.records import Block, Gap, GapReason, Promise, Stream, gap_from_record
from tests.support.crash_disk import Aftermath, CrashDisk

AUDIT, METRICS, GAPS = "audit", "metrics", "gaps"
FOLDER = Path("/state/outbox")
BOOT_ID = "0123456789abcdef" * 2
SEGMENT = 16 * 1024
WINDOW = 1.0
LONGEST_WINDOW = 10.0
"""Records wait so long at most for the disk when few come."""
IMAGES = 4


class ViolationError(AssertionError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Put:
    """A record, and when: `begun` and `returned` count calls to the disk; None: it did not return."""

    content: bytes
    begun: int
    returned: int | None
    at: float


@dataclass(slots=True)
class Past:
    """What really happened: by stream and epoch the records put, by name those that arrived and were acknowledged."""

    puts: dict[tuple[str, int], list[Put]] = field(default_factory=dict)
    arrived: dict[tuple[str, int, int], int] = field(default_factory=dict)
    acknowledged: dict[tuple[str, int, int], int] = field(default_factory=dict)
    gaps: list[tuple[Gap, int]] = field(default_factory=list)

    def aged(self) -> "Past":
        """The same, as a former life's."""
        puts = {
            key: [replace(one, begun=-1, returned=None if one.returned is None else -1) for one in values]
            for key, values in self.puts.items()
        }
        gaps = [(gap, -1) for gap, _ in self.gaps]
        return Past(puts, dict.fromkeys(self.arrived, -1), dict.fromkeys(self.acknowledged, -1), gaps)

    def until(self, cut: int) -> "Past":
        """What had happened when the power went after `cut` calls."""
        past = Past()
        for key, puts in self.puts.items():
            known = [one for one in puts if one.begun <= cut]
            returned = (one.returned is not None and one.returned <= cut for one in known)
            if known:
                past.puts[key] = [
                    replace(one, returned=one.returned if done else None)
                    for one, done in zip(known, returned, strict=True)
                ]
        past.arrived = {name: at for name, at in self.arrived.items() if at <= cut}
        past.acknowledged = {name: at for name, at in self.acknowledged.items() if at <= cut}
        past.gaps = [(gap, at) for gap, at in self.gaps if at <= cut]
        return past


@dataclass(slots=True)
class Life:
    """An outbox between two power cuts, and everything done to it."""

    disk: CrashDisk
    past: Past
    chance: random.Random
    capacity: int
    now: float = 1000.0
    marks: list[tuple[int, float]] = field(default_factory=list)

    def open(self) -> Outbox:
        streams = (
            Stream(AUDIT, Promise.CRITICAL, 1 << 30, 0),
            Stream(METRICS, Promise.NORMAL, self.capacity, 3),
            Stream(GAPS, Promise.CRITICAL, 1 << 20, 0),
        )
        return Outbox(
            FOLDER, streams, BOOT_ID, lambda: self.now,
            window_seconds=WINDOW, free_floor_bytes=0, disk=self.disk, segment_size=SEGMENT, spooler=False,
        )  # fmt: skip

    def run(self, steps: int) -> None:
        """Do random things, and close in the end, or not."""
        outbox = self.open()
        held: list[Block] = []
        for _ in range(steps):
            self.chance.choice((self.put, self.put, self.put, self.take, self.take, self.pass_time, self.settle))(
                outbox, held
            )
        if self.chance.random() < 0.3:
            outbox.close()
            assert self.disk.open_handles == 0
            held.clear()
            outbox = self.open()
            self.put(outbox, held)

    def put(self, outbox: Outbox, held: list[Block]) -> None:
        del held
        stream = self.chance.choice((AUDIT, METRICS, METRICS))
        count = self.chance.choice((1, 1, 3, 40))
        puts = self.past.puts.setdefault((stream, outbox.epoch), [])
        begun = len(self.disk.operations)
        # Noise, so that a few records fill a sector and some fill a segment.
        noise = self.chance.choice((4, 40, 400)) if count < 40 else 4
        contents = [
            b'{"n":%d,"x":"%s"}' % (len(puts) + number + 1, self.chance.randbytes(noise).hex().encode())
            for number in range(count)
        ]
        place = len(puts)
        puts.extend(Put(content, begun, None, self.now) for content in contents)
        outbox.put(stream, contents)
        returned = len(self.disk.operations)
        puts[place:] = [Put(content, begun, returned, self.now) for content in contents]
        self.mark()

    def take(self, outbox: Outbox, held: list[Block]) -> None:
        block = self.chance.choice((outbox.next_live, outbox.next_backlog))()
        if block is not None:
            held.append(block)
        self.mark()

    def settle(self, outbox: Outbox, held: list[Block]) -> None:
        """Most blocks arrive; some acknowledgements do not."""
        if not held:
            return
        block = held.pop(self.chance.randrange(len(held)))
        fate = self.chance.random()
        if fate < 0.9:
            arrive(self.past, block, len(self.disk.operations))
        if fate < 0.8:
            at = len(self.disk.operations)
            for number in range(block.first, block.last + 1):
                self.past.acknowledged.setdefault((block.stream, block.epoch, number), at)
            outbox.acknowledged(block)
        else:
            outbox.returned(block)

    def pass_time(self, outbox: Outbox, held: list[Block]) -> None:
        del held
        until = self.now + self.chance.choice((0.1, 0.6, 1.5, 11.0, 31.0))
        while self.now < until:
            due = outbox.run_due()
            self.mark()
            self.now = until if due is None else max(self.now, min(due, until))
            self.mark()

    def mark(self) -> None:
        self.marks.append((len(self.disk.operations), self.now))

    def time_at(self, cut: int) -> float:
        """The latest that it may have been when the power went."""
        return max((now for at, now in self.marks if at <= cut), default=1000.0)


def arrive(past: Past, block: Block, at: int) -> list[bytes]:
    """A block reaches the consumer: it must be what was put, under the numbers it was put."""
    records = zlib.decompress(block.payload).split(b"\n")
    if len(records) != block.count:
        raise ViolationError(f"{block} has {len(records)} records")
    if block.stream == GAPS:
        past.gaps.extend((gap_from_record(record), at) for record in records)
        return records
    puts = past.puts.get((block.stream, block.epoch), [])
    for number, record in enumerate(records, block.first):
        if number > len(puts) or puts[number - 1].content != record:
            raise ViolationError(f"{block.stream} {block.epoch} {number} is not what was put")
        past.arrived.setdefault((block.stream, block.epoch, number), at)
    return records


def check(disk: CrashDisk, past: Past, cut_at: float, capacity: int) -> None:
    """Start on what is left, take everything, and compare with what really happened."""
    life = Life(disk, past, random.Random(0), capacity, now=cut_at + 1)
    outbox = life.open()
    if any(epoch >= outbox.epoch for _, epoch in past.puts):
        raise ViolationError(f"epoch {outbox.epoch} was given before")
    outbox.put(AUDIT, [b'{"n":1}'])
    past.puts[AUDIT, outbox.epoch] = [Put(b'{"n":1}', 0, 0, cut_at)]
    last: dict[str, tuple[int, int]] = {}
    for take in (outbox.next_backlog, outbox.next_live):
        while (block := take()) is not None:
            arrive(past, block, 0)
            if (block.epoch, block.first) <= last.get(block.stream, (0, 0)):
                raise ViolationError(f"{block.stream} {block.epoch} {block.first} came twice or late")
            last[block.stream] = block.epoch, block.last
            outbox.acknowledged(block)
    waiting = [one for one in outbox.facts() if one.records]
    if waiting:
        raise ViolationError(f"{waiting} wait and are not handed out")
    _compare(past, outbox.epoch, cut_at)


def _compare(past: Past, epoch_now: int, cut_at: float) -> None:
    for gap, _ in past.gaps:
        # After a second power cut the last write before the first one looks like damage; what was acknowledged not.
        last = gap.first if gap.last is None else gap.last
        names = ((gap.stream, gap.epoch, number) in past.acknowledged for number in range(gap.first, last + 1))
        if gap.reason is GapReason.DAMAGED and any(names):
            raise ViolationError(f"it was acknowledged, and is not lost: {gap}")
    for (stream, epoch), puts in past.puts.items():
        closed, end = _told(past, stream, epoch)
        for number, one in enumerate(puts, 1):
            name = f"{stream} {epoch} {number}"
            if one.returned is None or (stream, epoch, number) in past.arrived:
                continue
            if stream == AUDIT:
                raise ViolationError(f"{name} is lost, and was put")
            if number not in closed and (number < end or epoch == epoch_now):
                raise ViolationError(f"{name} is lost, and nobody told")
            if number not in closed and cut_at - one.at > LONGEST_WINDOW + 0.01 and one.begun >= 0:
                raise ViolationError(f"{name} is lost, and {cut_at - one.at} s old")


def _told(past: Past, stream: str, epoch: int) -> tuple[set[int], float]:
    """Which records of an epoch the gaps name, and from which on they say that nobody knows."""
    closed: set[int] = set()
    end = math.inf
    for gap, _ in past.gaps:
        if (gap.stream, gap.epoch) == (stream, epoch):
            if gap.last is None:
                end = min(end, gap.first)
            else:
                closed.update(range(gap.first, gap.last + 1))
    return closed, end


def explore(
    seed: int, *, lives: int = 3, steps: int = 30, lies: frozenset[str] = frozenset(), images: int = IMAGES
) -> Iterator[None]:
    """Yield once for each disk that was looked at; a `ViolationError` names the seed."""
    chance = random.Random(seed)
    capacity = chance.choice((1 << 30, 4 * SEGMENT))
    disk, past = CrashDisk(folders={"/", "/state"}), Past()
    for number in range(lives):
        before = Aftermath.of(disk, lies)
        life = Life(disk, past, chance, capacity)
        life.run(steps)
        choice: tuple[CrashDisk, Past] | None = None
        seen = 0
        for cut, operation in enumerate(life.disk.operations, 1):
            before.apply(operation)
            for left in before.disks(chance, images):
                at = life.time_at(cut)
                remembered = Aftermath.of(left)
                try:
                    check(left, life.past.until(cut), at, capacity)
                except ViolationError as problem:
                    raise ViolationError(
                        f"seed {seed}, life {number + 1}, call {cut} {operation[:3]}: {problem}"
                    ) from None
                yield
                seen += 1
                if chance.randrange(seen) == 0:
                    choice = next(remembered.disks(chance, 1)), life.past.until(cut)
        if choice is None:
            return
        disk, past = choice[0], choice[1].aged()


def count_states(seeds: range, most: int, on_state: Callable[[], None] = lambda: None, **options: object) -> int:
    """Explore seed after seed until that many disks were looked at, and return how many were."""
    states = 0
    for seed in seeds:
        for _ in explore(seed, **options):  # type: ignore[arg-type]
            states += 1
            on_state()
            if states >= most:
                return states
    return states


def mutant_is_caught(most: int, lies: frozenset[str] = frozenset(), **options: int) -> int | None:
    """Return after how many disks a violation was found; None when none was."""
    states = 0
    try:
        for seed in range(1000):
            for _ in explore(seed, lies=lies, **options):
                states += 1
                if states >= most:
                    return None
    except (ViolationError, json.JSONDecodeError, zlib.error):
        return states + 1
    return None
