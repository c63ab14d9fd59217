import threading
import time
from pathlib import Path

import pytest

from edge.agent.store.outbox import Outbox
from edge.errors import InvalidInputError, StoreError
from edge.model.records import STREAMS, GapReason, Promise, Stream
from tests.support.outboxes import (
    BOOT_ID,
    SEGMENT,
    Bench,
    backlog,
    contents,
    facts,
    gaps,
    numbers,
    records,
    take_all,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "deep" / "outbox")


def test_critical_records_are_on_the_disk_when_put_returns(bench: Bench) -> None:
    bench.open().put("audit", records(1, 2))
    found = backlog(bench.open())
    assert [(one.stream, one.epoch, one.first, one.count, contents(one)) for one in found if one.stream == "audit"] == [
        ("audit", 1, 1, 2, records(1, 2))
    ]


def test_what_the_broker_acknowledges_in_time_never_touches_the_disk(bench: Bench) -> None:
    outbox = bench.open()
    for number in range(100):
        outbox.put("metrics", records(number))
        bench.clock.now += 0.5
        for block in take_all(outbox.next_live):
            outbox.acknowledged(block)
        outbox.run_due()
    assert not (bench.folder / "metrics").exists()
    assert facts(outbox, "metrics").records == 0


def test_what_is_not_acknowledged_is_written_when_enough_waits_or_ten_seconds_passed(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("metrics", records(1))
    outbox.put("logs", records(*range(400), size=200))
    assert outbox.run_due() == 1001.0
    bench.clock.now += 1.0
    assert outbox.run_due() == 1010.0
    assert {one.stream for one in take_all(outbox.next_backlog)} == {"logs"}
    bench.clock.now += 9.0
    assert outbox.run_due() is None
    assert [one.stream for one in take_all(outbox.next_backlog)] == ["metrics"]
    assert (facts(outbox, "metrics").window_seconds, facts(outbox, "logs").window_seconds) == (10.0, 1.0)


def test_few_records_wait_half_a_window_to_be_sent_together_and_a_full_block_does_not(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("metrics", records(1))
    assert outbox.next_live() is None
    assert outbox.next_due() == 1000.5
    bench.clock.now = 1000.5
    outbox.put("metrics", records(2))
    block = outbox.next_live()
    assert block is not None
    assert contents(block) == records(1, 2)
    assert (block.first_ms, block.last_ms, block.boot_id) == (1_000_000, 1_000_500, BOOT_ID)
    outbox.put("metrics", records(*range(500)))
    assert [one.count for one in take_all(outbox.next_live)] == [500]
    assert outbox.next_due() is None


def test_many_or_large_records_become_several_blocks(bench: Bench) -> None:
    bench.segment = 1 << 20
    outbox = bench.open()
    outbox.put("audit", records(*range(1100)))
    outbox.put("audit", records(1, 2, 3, size=60_000))
    blocks = take_all(outbox.next_live)
    assert [one.count for one in blocks] == [500, 500, 100, 2, 1]
    assert numbers(blocks) == [(1, number) for number in range(1, 1104)]


def test_a_block_is_handed_out_once_until_it_is_returned(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("audit", records(1))
    outbox.put("audit", records(2))
    first, second = take_all(outbox.next_live)
    assert backlog(outbox) == []
    outbox.returned(first)
    assert take_all(outbox.next_backlog) == [first]
    outbox.returned_all()
    assert take_all(outbox.next_backlog) == [first, second]
    outbox.acknowledged(second)
    outbox.acknowledged(second)
    outbox.returned(second)
    outbox.returned(first)
    assert backlog(outbox) == [first]
    assert facts(outbox, "audit").records == 0


def test_a_block_in_memory_that_was_returned_is_sent_again(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("metrics", records(1))
    bench.clock.now += 0.5
    block = outbox.next_live()
    assert block is not None
    outbox.returned_all()
    assert take_all(outbox.next_live) == [block]


def test_a_block_that_was_written_under_way_is_settled_by_its_late_acknowledgement(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("metrics", records(1))
    bench.clock.now += 0.5
    block = outbox.next_live()
    assert block is not None
    bench.clock.now += 10.0
    outbox.run_due()
    assert facts(outbox, "metrics").records == 1
    assert outbox.next_backlog() is None
    outbox.acknowledged(block)
    assert facts(outbox, "metrics").records == 0
    outbox.close()
    assert backlog(bench.open()) == []


def test_the_most_important_goes_first_and_each_stream_keeps_its_order(bench: Bench) -> None:
    outbox = bench.open()
    for stream in ("logs", "metrics", "audit"):
        outbox.put(stream, records(1))
        outbox.put(stream, records(2))
    outbox.flush()
    assert [(one.stream, one.first) for one in take_all(outbox.next_backlog)] == [
        ("audit", 1),
        ("audit", 2),
        ("metrics", 1),
        ("logs", 1),
    ]


def test_flush_puts_everything_on_the_disk(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("metrics", records(1))
    outbox.flush()
    assert numbers(backlog(bench.open(), "metrics")) == [(1, 1)]


def test_a_clean_end_leaves_no_gap_and_what_was_acknowledged_does_not_come_again(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("audit", records(1))
    outbox.put("audit", records(2))
    block = outbox.next_live()
    assert block is not None
    outbox.acknowledged(block)
    outbox.put("metrics", records(1))
    outbox.close()
    outbox = bench.open()
    assert outbox.epoch == 2
    assert [(one.stream, one.epoch, one.first) for one in backlog(outbox)] == [("audit", 1, 2), ("metrics", 1, 1)]


def test_an_end_without_close_is_told_by_an_open_ended_gap_of_each_normal_stream(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("metrics", records(1, 2))
    outbox.flush()
    outbox.put("metrics", records(3))
    del outbox
    again = bench.open()
    told = [(one.stream, one.epoch, one.first, one.last, one.reason) for one in gaps(backlog(again))]
    assert told == [("metrics", 1, 3, None, GapReason.POWER_CUT), ("logs", 1, 1, None, GapReason.POWER_CUT)]
    again.close()
    assert list(gaps(backlog(bench.open()))) == [], "told once"


def test_only_the_newest_of_a_key_is_sent_and_a_returned_one_does_not_replace_it(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put_latest("state", "a", b'{"v":1}')
    outbox.put_latest("state", "b", b'{"v":2}')
    outbox.put_latest("state", "a", b'{"v":3}')
    assert outbox.next_live() is None
    bench.clock.now += 0.5
    block = outbox.next_live()
    assert block is not None
    assert contents(block) == [b'{"v":2}', b'{"v":3}']
    outbox.put_latest("state", "a", b'{"v":4}')
    outbox.returned(block)
    bench.clock.now += 0.5
    (block,) = take_all(outbox.next_live)
    assert sorted(contents(block)) == [b'{"v":2}', b'{"v":4}']
    outbox.acknowledged(block)
    bench.clock.now += 0.5
    outbox.returned_all()
    assert outbox.next_live() is None
    assert facts(outbox, "state").records == 0


def test_the_newest_records_take_no_more_memory_than_their_stream_may(bench: Bench) -> None:
    outbox = bench.open()
    for number in range(100):
        outbox.put_latest("state", f"key-{number}", b'{"v":"' + b"x" * 992 + b'"}')
    assert facts(outbox, "state").bytes == 10_000
    bench.clock.now += 0.5
    block = outbox.next_live()
    assert block is not None
    assert block.count == 10


@pytest.mark.parametrize("bad", [[], [b""], [b"{}\n{}"], [b"{}", b'{"a":"' + b"x" * 65_536 + b'"}']])
def test_what_is_no_record_is_refused_and_nothing_of_it_taken(bench: Bench, bad: list[bytes]) -> None:
    outbox = bench.open()
    with pytest.raises(InvalidInputError):
        outbox.put("audit", bad)
    with pytest.raises(InvalidInputError):
        outbox.put("no-such", records(1))
    with pytest.raises(InvalidInputError):
        outbox.put_latest("audit", "key", b"{}")
    assert [one.records for one in outbox.facts()] == [0, 0, 0, 0, 0]


def test_a_stream_that_reached_its_share_drops_its_oldest_segment_and_tells_it_exactly(bench: Bench) -> None:
    bench.streams = (Stream("audit", Promise.CRITICAL, 4 * SEGMENT, 0),)
    outbox = bench.open()
    for number in range(100):
        outbox.put("audit", records(number, size=10_000))
    assert sum(path.stat().st_size for path in (bench.folder / "audit").glob("*.seg")) == 4 * SEGMENT
    blocks = take_all(outbox.next_backlog)
    told = list(gaps(blocks))
    lost = [number for gap in told for number in range(gap.first, (gap.last or 0) + 1)]
    left = [one.first for one in blocks if one.stream == "audit"]
    assert lost
    assert lost + left == list(range(1, 101)), "delivered and gaps are all that was put, and nothing twice"
    assert {gap.reason for gap in told} == {GapReason.CAPACITY}
    assert facts(outbox, "audit").gaps == len(told)


def test_what_was_acknowledged_is_not_told_as_lost_when_its_segment_goes(bench: Bench) -> None:
    bench.streams = (Stream("audit", Promise.CRITICAL, 4 * SEGMENT, 0),)
    outbox = bench.open()
    for number in range(100):
        outbox.put("audit", records(number, size=10_000))
        if number % 2:
            for block in take_all(outbox.next_live):
                outbox.acknowledged(block)
    outbox.close()
    assert list(gaps(backlog(bench.open()))) == []


def test_the_space_of_others_is_left_to_them_and_the_least_important_gives_way(bench: Bench) -> None:
    outbox = bench.open()
    for number in range(40):
        outbox.put("logs", records(number, size=8000))
        outbox.flush()
    before = facts(outbox, "logs").records
    outbox.close()
    # From here on every new file is one too many.
    bench.free_floor = 1 << 62
    outbox = bench.open()
    for number in range(30):
        outbox.put("audit", records(number, size=8000))
    blocks = take_all(outbox.next_backlog)
    told = [gap for gap in gaps(blocks) if gap.stream == "logs"]
    assert told
    assert {gap.reason for gap in told} == {GapReason.NO_SPACE}
    lost = sum((gap.last or 0) - gap.first + 1 for gap in told)
    assert lost + sum(one.count for one in blocks if one.stream == "logs") == before == 40
    assert "kept free" in facts(outbox, "audit").problem


def test_settled_segments_are_used_again_and_the_rest_removed(bench: Bench) -> None:
    outbox = bench.open()
    for number in range(60):
        outbox.put("audit", records(number, size=10_000))
    names = set((bench.folder / "audit").glob("*.seg"))
    assert len(names) > 5
    sent = take_all(outbox.next_live)
    for block in sent:
        outbox.acknowledged(block)
    assert len(backlog(outbox)) + len(sent) == 60
    outbox.run_due()
    assert len(list((bench.folder / "audit").glob("*.seg"))) == 3, "the one that is written to, and two spares"
    outbox.put("audit", records(1, 2, 3, 4, 5, size=10_000))
    assert len(list((bench.folder / "audit").glob("*.seg"))) == 3
    outbox.close()
    assert numbers(backlog(bench.open(), "audit")) == [(1, number) for number in range(61, 66)]


def test_facts_tell_the_oldest_and_what_waits(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("audit", records(1))
    bench.clock.now += 5
    outbox.put("audit", records(2, 3))
    outbox.put("metrics", records(1))
    audit, metrics = facts(outbox, "audit"), facts(outbox, "metrics")
    assert (audit.records, audit.oldest_ms, audit.oldest_boot_id) == (3, 1_000_000, BOOT_ID)
    assert audit.bytes >= 4096
    assert (metrics.records, metrics.oldest_ms, metrics.window_seconds) == (1, 1_005_000, 1.0)
    assert [one.stream for one in outbox.facts()] == ["gaps", "audit", "metrics", "logs", "state"]


def test_after_close_nothing_is_taken(bench: Bench) -> None:
    outbox = bench.open()
    outbox.put("audit", records(1))
    outbox.close()
    outbox.close()
    with pytest.raises(StoreError, match="closed"):
        outbox.put("audit", records(2))
    assert outbox.next_backlog() is None


def test_the_spooler_writes_by_itself_and_wait_returns_when_there_is_something(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", STREAMS, BOOT_ID, time.monotonic, window_seconds=0.05, free_floor_bytes=0)
    heard = threading.Event()
    outbox.changed = heard.set
    waiter = threading.Thread(target=outbox.wait, args=(60.0,))
    waiter.start()
    outbox.put("metrics", records(*range(400), size=200))
    waiter.join(30)
    assert not waiter.is_alive()
    assert heard.is_set()
    deadline = time.monotonic() + 30
    while (block := outbox.next_backlog()) is None and time.monotonic() < deadline:
        outbox.wait(0.05)
    assert block is not None
    assert block.stream == "metrics"
    outbox.close()


def test_many_threads_put_and_take_and_every_record_arrives_once(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox", STREAMS, BOOT_ID, time.monotonic, window_seconds=0.02, free_floor_bytes=0)
    done = threading.Event()
    arrived: list[tuple[str, int]] = []

    def produce(stream: str, source: int) -> None:
        for number in range(200):
            outbox.put(stream, records(source * 1000 + number, size=50))

    def drain() -> None:
        while True:
            finished = done.is_set()
            took = False
            for take in (outbox.next_live, outbox.next_backlog):
                while (block := take()) is not None:
                    took = True
                    arrived.extend((block.stream, number) for number in range(block.first, block.last + 1))
                    outbox.acknowledged(block)
            if finished and not took and not any(one.records for one in outbox.facts()):
                return
            outbox.wait(0.01)

    producers = [
        threading.Thread(target=produce, args=(stream, source))
        for source, stream in enumerate(("audit", "audit", "metrics", "metrics", "logs"))
    ]
    drainer = threading.Thread(target=drain)
    for thread in (*producers, drainer):
        thread.start()
    for thread in producers:
        thread.join(60)
    done.set()
    drainer.join(60)
    assert not drainer.is_alive()
    outbox.close()
    expected = [(stream, number) for stream, most in (("audit", 400), ("metrics", 400), ("logs", 200))
                for number in range(1, most + 1)]  # fmt: skip
    assert sorted(arrived) == sorted(expected)
