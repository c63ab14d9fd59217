"""A buffer that was closed as it should be, and what is left of it when bytes are not what they were."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tests.support.accounts import Account
from tests.support.crash_disk import CrashDisk
from tests.support.outboxes import AUDIT, Bench, facts, records, take_all

FOLDER = Path("/state/outbox")
SEGMENT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Buffer:
    """The disk, and what was put.

    Attributes:
        size: Bytes of all segments.
        largest: Records of the largest block.
    """

    disk: CrashDisk
    put: dict[tuple[int, int], bytes]
    acknowledged: frozenset[tuple[int, int]]
    size: int
    largest: int

    @classmethod
    def make(cls, blocks: int) -> "Buffer":
        """Fill it in two starts; the first block is acknowledged, so that there is a cursor."""
        disk = CrashDisk(folders={"/", "/state"})
        bench = Bench(FOLDER, disk=disk, streams=(AUDIT,), segment=SEGMENT)
        account = Account("audit")
        acknowledged: set[tuple[int, int]] = set()
        for start in range(2):
            outbox = bench.open()
            if start:
                block = outbox.next_backlog()
                assert block is not None
                outbox.acknowledged(block)
                acknowledged = {(block.epoch, number) for number in range(block.first, block.last + 1)}
            for number in range(blocks // 2):
                account.puts(outbox, records(*range(number % 3 + 1), size=1000 + 40 * number))
            outbox.close()
        size = sum(len(disk.files[inode]) for name, inode in disk.names_of.items() if name.endswith(".seg"))
        return cls(disk, account.put, frozenset(acknowledged), size, 3)


def check_flip(buffer: Buffer, offset: int, mask: int, file: str = "segments") -> int:
    """Flip bits of one byte, start, take everything; return how many records are lost."""
    return check_flips(buffer, (offset,), mask, file)


def check_flips(buffer: Buffer, offsets: Collection[int], mask: int, file: str = "segments") -> int:
    """Flip bits of several bytes at once; see `check_flip`."""
    disk = CrashDisk(
        dict(buffer.disk.names_of),
        {inode: bytearray(content) for inode, content in buffer.disk.files.items()},
        set(buffer.disk.folders),
        _next=10_000,
    )
    for offset in offsets:
        _flip(disk, offset, mask, file)
    outbox = Bench(FOLDER, disk=disk, streams=(AUDIT,), segment=SEGMENT).open()
    assert outbox.epoch > 2
    account = Account("audit", dict(buffer.put))
    account.takes(take_all(outbox.next_backlog))
    account.takes(take_all(outbox.next_live))
    lost = buffer.put.keys() - account.came.keys() - buffer.acknowledged
    assert lost <= account.lost, f"{file} {offsets}: {lost - account.lost} is lost, and nobody told"
    assert len(lost) <= buffer.largest * len(offsets), f"{file} {offsets}: {sorted(lost)} is more than a block each"
    assert bool(lost) == bool(facts(outbox, "audit").damaged), f"{file} {offsets}"
    if file != "segments":
        assert not lost, f"{file} {offsets}: a cursor or an epoch holds no record"
        assert not account.lost, f"{file} {offsets}: {account.lost} is told, and not lost"
    return len(lost)


def _flip(disk: CrashDisk, offset: int, mask: int, file: str) -> None:
    if file == "segments":
        names = sorted(name for name in disk.names_of if name.endswith(".seg") and "/audit/" in name)
        number, offset = divmod(offset, SEGMENT)
        if number >= len(names):
            return
        name = names[number]
    else:
        name = str(FOLDER / ("epoch" if file == "epoch" else "audit/cursor"))
    content = disk.files[disk.names_of[name]]
    content[offset] ^= mask
