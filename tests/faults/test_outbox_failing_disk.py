"""The disk fails once at each call, for a while from each call on, at every sync: whoever stays up loses no record."""

import errno
from pathlib import Path

import pytest

from tests.support.accounts import Account
from tests.support.crash_disk import CrashDisk
from tests.support.failing_disk import CHANGING, FailingDisk
from tests.support.outboxes import AUDIT, METRICS, Bench, facts, records, take_all

SEGMENT = 16 * 1024
ERRORS = (errno.EIO, errno.ENOSPC, errno.EROFS)


def _bench() -> tuple[Bench, FailingDisk]:
    disk = FailingDisk(CrashDisk(folders={"/", "/state"}))
    return Bench(Path("/state/outbox"), disk=disk, streams=(AUDIT, METRICS), segment=SEGMENT), disk


def _work(bench: Bench, audit: Account, metrics: Account) -> None:
    """Use everything: new segments, settled ones, cursors, a second start."""
    for _ in range(2):
        outbox = bench.open()
        for number in range(12):
            audit.puts(outbox, records(number, size=4000))
            metrics.puts(outbox, records(number, number, size=1500))
            bench.clock.now += 11
            outbox.run_due()
            for block in take_all(outbox.next_live)[:3]:
                audit.takes([block])
                metrics.takes([block])
                outbox.acknowledged(block)
        outbox.close()


def _rest(bench: Bench, *accounts: Account) -> None:
    """The disk works again, and everything is taken."""
    outbox = bench.open()
    blocks = [*take_all(outbox.next_backlog), *take_all(outbox.next_live)]
    for account in accounts:
        account.takes(blocks)
    assert all(one.damaged == 0 for one in outbox.facts())


def _calls() -> list[str]:
    bench, disk = _bench()
    _work(bench, Account("audit"), Account("metrics"))
    return disk.calls


CALLS = _calls()


@pytest.mark.parametrize("number", ERRORS)
def test_a_call_that_fails_once_loses_nothing_wherever_it_is(number: int) -> None:
    assert set(CALLS) == set(CHANGING) - {"remove"}, "everything but a removal is exercised"
    for place in range(len(CALLS)):
        bench, disk = _bench()
        disk.fails = lambda _call, at, place=place: number if at == place else None  # type: ignore[misc]
        audit, metrics = Account("audit"), Account("metrics")
        _work(bench, audit, metrics)
        _rest(bench, audit, metrics)
        assert (audit.missing(), metrics.missing()) == (set(), set()), (place, CALLS[place])
        assert not (audit.lost - audit.came.keys()), (place, CALLS[place], "nothing critical is lost")
        # A full disk takes what is important from what is less so.
        if number != errno.ENOSPC:
            assert not (metrics.lost - metrics.came.keys()), (place, CALLS[place])


@pytest.mark.parametrize("number", ERRORS)
def test_a_disk_that_fails_for_a_while_loses_nothing_while_memory_lasts(number: int) -> None:
    for begin in range(0, len(CALLS) - 20, 3):
        bench, disk = _bench()
        disk.fails = lambda _call, at, begin=begin: number if begin <= at < begin + 15 else None  # type: ignore[misc]
        audit, metrics = Account("audit"), Account("metrics")
        _work(bench, audit, metrics)
        disk.fails = lambda _call, _at: None
        _rest(bench, audit, metrics)
        # What was still in memory at a stop is gone; of a normal stream that is told.
        assert metrics.missing() == set(), begin
        ended = {epoch for epoch, _ in audit.missing()}
        assert len(ended) <= 1, (begin, "only a stop without a disk loses what is critical")


def test_a_failed_sync_is_not_believed_and_its_records_stand_elsewhere() -> None:
    bench, disk = _bench()
    outbox = bench.open()
    account = Account("audit")
    account.puts(outbox, records(1))
    disk.fails = lambda call, _at: errno.EIO if call == "sync" else None
    account.puts(outbox, records(2))
    assert facts(outbox, "audit").problem == "EIO"
    assert facts(outbox, "audit").records == 2
    disk.fails = lambda _call, _at: None
    account.puts(outbox, records(3))
    assert facts(outbox, "audit").problem == "EIO", "not tried again before its time"
    bench.clock.now += 1.0
    outbox.run_due()
    assert facts(outbox, "audit").problem == ""
    assert facts(outbox, "audit").records == 3
    numbers = sorted(name for name in disk.names(bench.folder / "audit") if name.endswith(".seg"))
    assert numbers == ["0000000000000001.seg", "0000000000000002.seg"], "the segment of the failed sync is left"
    account.takes(take_all(bench.open().next_backlog))
    assert account.came == account.put
    assert account.lost == set()


def test_memory_that_is_full_drops_its_oldest_and_tells_exactly_which() -> None:
    bench, disk = _bench()
    outbox = bench.open()
    account = Account("audit")
    account.puts(outbox, records(0))
    disk.fails = lambda _call, _at: errno.EROFS
    for number in range(400):
        account.puts(outbox, records(number, size=8000))
        bench.clock.now += 0.1
    assert facts(outbox, "audit").problem == "EROFS"
    disk.fails = lambda _call, _at: None
    bench.clock.now += 120
    outbox.run_due()
    outbox.run_due()
    assert facts(outbox, "audit").problem == ""
    account.takes(take_all(outbox.next_backlog))
    assert account.missing() == set()
    assert account.lost & account.came.keys() == set()
    assert sorted(account.lost) == [(1, number) for number in range(2, 2 + len(account.lost))], "the oldest"
    assert account.reasons == {"write-failed"}
