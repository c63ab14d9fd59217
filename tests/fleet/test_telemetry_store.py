"""What arrives is kept once, counted whole, and its times are set right afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.fleet.ranges import holes, size, union
from edge.fleet.telemetry_store import Conservation, TelemetryStore
from edge.model.records import Gap, GapReason, gap_to_record
from edge.model.telemetry import BootClock, encode_block, parse_batch
from tests.fakes.outbox import block_of

GOOD, UNKNOWN = BootClock(1_763_942_400_000, synchronized=True), BootClock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TelemetryStore]:
    made = TelemetryStore(tmp_path / "telemetry.db")
    yield made
    made.close()


def add(  # noqa: PLR0913 - a batch
    store: TelemetryStore, first: int, last: int, *, clock: BootClock = GOOD, stream: str = "metrics", epoch: int = 1
) -> int:
    records = [b'{"t":%d,"n":%d}' % (number * 1000, number) for number in range(first, last + 1)]
    return add_records(store, records, first, clock=clock, stream=stream, epoch=epoch)


def add_records(  # noqa: PLR0913 - a batch
    store: TelemetryStore, records: list[bytes], first: int, *, clock: BootClock = GOOD, stream: str, epoch: int = 1
) -> int:
    block = block_of(records, first=first, stream=stream, epoch=epoch)
    message = encode_block(block, historical=False, clock=clock)
    return store.add([("shop", "pi-1", parse_batch(message), block.payload)], "2026-11-24T00:00:00Z")


def numbers(store: TelemetryStore, stream: str = "metrics") -> list[int]:
    return [record.number for record in store.records("shop", stream=stream)]


def account(store: TelemetryStore, stream: str = "metrics") -> Conservation:
    return next(one for one in store.check("shop") if one.stream == stream)


def test_a_block_that_comes_twice_is_kept_once_also_in_parts(store: TelemetryStore) -> None:
    assert add(store, 1, 10) == 1
    assert add(store, 1, 10) == 0
    assert add(store, 1, 5) + add(store, 6, 10) == 0
    assert add(store, 8, 12) == 1
    assert numbers(store) == list(range(1, 13))


def test_what_is_missing_is_told_and_what_is_told_as_lost_is_not_missing(store: TelemetryStore) -> None:
    add(store, 1, 10)
    add(store, 21, 30)
    assert account(store).missing == ((11, 20),)
    gap = Gap("metrics", 1, 11, 18, 0, 0, "", GapReason.CAPACITY)
    add_records(store, [gap_to_record(gap, 5)], 1, stream="gaps")
    found = account(store)
    assert (found.produced, found.delivered, found.lost, found.missing) == (30, 20, 8, ((19, 20),))
    assert found.reasons == ("capacity",)
    add(store, 19, 20)
    assert account(store).missing == ()


def test_what_arrived_after_all_is_not_lost_whatever_a_gap_says(store: TelemetryStore) -> None:
    gap = Gap("metrics", 1, 5, None, 0, 0, "", GapReason.POWER_CUT)
    add_records(store, [gap_to_record(gap, 5)], 1, stream="gaps")
    add(store, 1, 10)
    found = account(store)
    assert (found.produced, found.delivered, found.lost, found.open_ended) == (10, 10, 0, True)


def test_a_clock_that_becomes_known_sets_the_times_of_its_whole_boot(store: TelemetryStore) -> None:
    add(store, 1, 2, clock=UNKNOWN)
    assert [record.time for record in store.records("shop")] == ["", ""]
    add(store, 3, 3, clock=BootClock(0, synchronized=False))
    assert [record.certain for record in store.records("shop")] == [False] * 3
    add(store, 4, 4, clock=GOOD)
    add(store, 5, 5, clock=BootClock(7, synchronized=False))
    found = list(store.records("shop"))
    assert [record.certain for record in found] == [True] * 5
    assert found[0].time == "2025-11-24T00:00:01.000Z"
    between = store.records("shop", since="2025-11-24T00:00:02Z", until="2025-11-24T01:00:04+01:00")
    assert [record.number for record in between] == [2, 3]


def test_the_oldest_go_when_there_is_too_much_and_stay_accounted_for(tmp_path: Path) -> None:
    store = TelemetryStore(tmp_path / "small.db", most_bytes=2000)
    for first in range(1, 1000, 10):
        add(store, first, first + 9)
    kept = numbers(store)
    assert 10 < len(kept) < 500
    assert kept == list(range(kept[0], 1001))
    assert (account(store).delivered, account(store).missing) == (1000, ())
    store.close()


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), max_size=20))
def test_ranges_are_what_sets_of_numbers_are(pairs: list[tuple[int, int]]) -> None:
    ranges = [(first, first + more) for first, more in pairs]
    there = {number for first, last in ranges for number in range(first, last + 1)}
    assert size(ranges) == len(there)
    assert {n for first, last in union(ranges) for n in range(first, last + 1)} == there
    assert {n for first, last in holes(ranges, 1, 50) for n in range(first, last + 1)} == set(range(1, 51)) - there


@settings(max_examples=25, deadline=None)
@given(order=st.permutations([(1, 5), (6, 9), (10, 10), (1, 9), (4, 8), (9, 12)]))
def test_in_whatever_order_blocks_come_each_record_is_shown_once(
    tmp_path_factory: pytest.TempPathFactory, order: list[tuple[int, int]]
) -> None:
    store = TelemetryStore(tmp_path_factory.mktemp("order") / "t.db")
    for first, last in order:
        add(store, first, last)
    assert sorted(numbers(store)) == list(range(1, 13))
    assert (account(store).delivered, account(store).missing) == (12, ())
    store.close()
