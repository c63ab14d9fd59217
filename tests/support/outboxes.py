"""Outboxes for tests: small segments, a clock that stands until it is told, no thread unless asked for."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.agent.store.disk import Disk
from edge.agent.store.outbox import Outbox, StreamFacts
from edge.model.records import Block, Gap, Promise, Stream, gap_from_record

BOOT_ID = "0123456789abcdef" * 2
SEGMENT = 64 * 1024
AUDIT = Stream("audit", Promise.CRITICAL, 1 << 30, 0)
METRICS = Stream("metrics", Promise.NORMAL, 1 << 30, 3)
LOGS = Stream("logs", Promise.NORMAL, 1 << 30, 4)
STATE = Stream("state", Promise.LATEST, 10_000, 9)
STREAMS = (AUDIT, METRICS, LOGS, STATE)


@dataclass(slots=True)
class Clock:
    """Monotonic seconds."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Bench:
    """A folder, its clock, and the outbox that is open on it."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    disk: Disk | None = None
    streams: tuple[Stream, ...] = STREAMS
    free_floor: int = 0
    segment: int = SEGMENT

    def open(self) -> Outbox:
        return Outbox(
            self.folder, self.streams, BOOT_ID, self.clock,
            free_floor_bytes=self.free_floor, disk=self.disk, segment_size=self.segment, spooler=False,
        )  # fmt: skip


def records(*numbers: int, size: int = 0) -> list[bytes]:
    """Return records that say their number; `size` adds bytes that do not compress."""
    return [b'{"n":%d,"x":"%s"}' % (number, _noise(number, size)) for number in numbers]


def _noise(number: int, size: int) -> bytes:
    """Half of a hexadecimal digit's byte is entropy: zlib halves it."""
    out = b""
    while len(out) < size:
        out += b"%08x" % (zlib.crc32(b"%d %d" % (number, len(out))))
    return out[:size]


def contents(block: Block) -> list[bytes]:
    """Return a block's records."""
    found = zlib.decompress(block.payload).split(b"\n")
    assert len(found) == block.count
    return found


def take_all(take: Callable[[], Block | None]) -> list[Block]:
    """Take until there is nothing."""
    return list(iter(take, None))


def backlog(outbox: Outbox, stream: str = "") -> list[Block]:
    """Take and acknowledge everything on the disk; return a stream's blocks, or all."""
    blocks = take_all(outbox.next_backlog)
    for block in blocks:
        outbox.acknowledged(block)
    return [block for block in blocks if not stream or block.stream == stream]


def numbers(blocks: Iterable[Block]) -> list[tuple[int, int]]:
    """Return (epoch, number) of every record."""
    return [(block.epoch, number) for block in blocks for number in range(block.first, block.last + 1)]


def gaps(blocks: Iterable[Block]) -> Iterator[Gap]:
    """Yield the gaps that blocks of the stream `gaps` tell of."""
    return (gap_from_record(record) for block in blocks if block.stream == "gaps" for record in contents(block))


def facts(outbox: Outbox, stream: str) -> StreamFacts:
    """Return a stream's facts."""
    return next(one for one in outbox.facts() if one.stream == stream)
