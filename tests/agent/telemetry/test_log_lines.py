from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.agent.telemetry.log_lines import (
    MAXIMUM_LINE,
    MAXIMUM_TEXT,
    Entry,
    LineReader,
    Read,
    Source,
    dropped_record,
    log_record,
)
from edge.agent.telemetry.metrics import encode

TIME: Final = "2026-11-24T02:53:29.123456789+00:00"
LOG: Final = "".join(
    f"{TIME} {rest}\n"
    for rest in (
        "stdout F hello world",
        "stdout P first ",
        "stderr F between  two",
        "stdout P second ",
        "stdout F third",
        "stdout F ",
        "stderr F größe",
    )
).encode()
ENTRIES: Final = [
    Entry(TIME, "stdout", "hello world"),
    Entry(TIME, "stderr", "between  two"),
    Entry(TIME, "stdout", "first second third"),
    Entry(TIME, "stdout", ""),
    Entry(TIME, "stderr", "größe"),
]


def everything(_size: int) -> bool:
    return True


def first(count: int) -> Callable[[int], bool]:
    left = [count]

    def admits(_size: int) -> bool:
        left[0] -= 1
        return left[0] >= 0

    return admits


@given(st.lists(st.integers(0, len(LOG)), max_size=8))
def test_entries_are_the_same_however_the_file_is_read(cuts: list[int]) -> None:
    reader, found = LineReader(), []
    for start, end in pairwise([0, *sorted(cuts), len(LOG)]):
        found += reader.read(LOG[start:end], everything).entries
    assert found == ENTRIES
    assert reader.safe_offset == len(LOG)


@given(st.integers(0, len(LOG)))
def test_who_begins_again_where_it_is_safe_misses_nothing(cut: int) -> None:
    before, after = LineReader(), LineReader()
    found = before.read(LOG[:cut], everything).entries
    after.begin(before.safe_offset)
    again = after.read(LOG[before.safe_offset :], everything).entries
    assert {(e.stream, e.text) for e in ENTRIES} == {(e.stream, e.text) for e in found + again}
    assert len(found + again) <= len(ENTRIES) + 1


@given(st.binary(max_size=200))
def test_any_bytes_are_entries(data: bytes) -> None:
    reader = LineReader()
    found = reader.read(data, everything)
    assert len(found.entries) + len(reader.finish()) <= data.count(b"\n")


def test_what_is_over_the_limit_is_counted_and_what_follows_is_read() -> None:
    reader = LineReader()
    read = reader.read(LOG, first(2))
    # Four lines end in what is left out, one of them was begun before.
    assert read == Read([ENTRIES[0]], 4, len(LOG) - 2 * len(TIME) - len(" stdout F hello world\n stdout P first \n"))
    assert reader.safe_offset == len(LOG)
    assert reader.read(LOG, everything).entries == ENTRIES


@given(st.integers(1, len(LOG)), st.integers(0, 8))
def test_kept_and_dropped_are_all_lines_and_no_half_of_one_is_kept(cut: int, passes: int) -> None:
    reader = LineReader()
    before = reader.read(LOG[:cut], first(passes))
    after = reader.read(LOG[cut:], everything)
    kept = before.entries + after.entries
    assert all(entry in ENTRIES for entry in kept)
    assert len(kept) + before.dropped_lines + after.dropped_lines == len(ENTRIES)
    assert reader.safe_offset == len(LOG)


def test_a_long_line_becomes_several_that_go_on() -> None:
    reader, parts = LineReader(), []
    for tag in "PPF":
        parts += reader.read(f"{TIME} stdout {tag} {'x' * 5000}\n".encode(), everything).entries
    assert [(len(p.text), p.goes_on) for p in parts] == [
        (MAXIMUM_TEXT, True),
        (10_000 - MAXIMUM_TEXT, True),
        (5000, False),
    ]
    whole = reader.read(f"{TIME} stdout F {'y' * 20_000}\n".encode(), everything).entries
    assert [(len(p.text), p.goes_on) for p in whole] == [(MAXIMUM_TEXT, True), (MAXIMUM_TEXT, True), (3616, False)]


def test_bytes_without_an_end_are_not_kept_for_ever() -> None:
    reader = LineReader()
    assert reader.read(b"x" * MAXIMUM_LINE, everything).entries == []
    assert len(reader.read(b"x", everything).entries) == 9
    assert reader.safe_offset == MAXIMUM_LINE + 1


def test_what_was_begun_and_never_ended_comes_at_the_end() -> None:
    reader = LineReader()
    assert reader.read(f"{TIME} stdout P login: \n".encode(), everything).entries == []
    assert reader.safe_offset == 0
    assert reader.finish() == [Entry(TIME, "stdout", "login: ")]
    assert reader.safe_offset == len(TIME) + len(" stdout P login: \n")


@pytest.mark.parametrize("line", [b"no fields", b"a other F text", b"", b"\xff\xfe"])
def test_a_line_of_another_format_is_an_entry_without_a_time(line: bytes) -> None:
    assert LineReader().read(line + b"\n", everything).entries == [Entry("", "stdout", line.decode(errors="replace"))]


def test_the_largest_entry_fits_into_a_record() -> None:
    source = Source("t" * 64, "c" * 255, "g" * 512, "s" * 512)
    for byte in (b"\x01", b"\xff", b'"'):
        (entry,) = LineReader().read(TIME.encode() + b" stdout F " + byte * MAXIMUM_TEXT + b"\n", everything).entries
        assert len(encode(log_record(source, entry, 1))) < 64 * 1024


def test_a_record_says_whose_it_is() -> None:
    entry = Entry(TIME, "stderr", "oh", goes_on=True)
    assert log_record(Source("t", "c"), entry, 5) == {
        "t": 5,
        "time": TIME,
        "task": "t",
        "container": "c",
        "from": "stderr",
        "text": "oh",
        "goesOn": True,
    }
    assert log_record(Source("t", "c", "g", "s"), entry, 5)["group"] == "g"
    dropped = dropped_record(Source("t", "c"), 5, lines=7, size=70, files=0)
    assert (dropped["lines"], dropped["text"]) == (7, "7 lines dropped")
