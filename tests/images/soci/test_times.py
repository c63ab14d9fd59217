from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.images.soci.times import format_time, parse_time

NANO: Final = 1_000_000_000
YEAR_0: Final = -62_167_219_200
YEAR_10000: Final = 253_402_300_800


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_are_those_that_pythons_calendar_knows(time: datetime) -> None:
    text = time.isoformat().removesuffix("+00:00")
    whole, _, fraction = text.partition(".")
    expected = whole + (f".{fraction.rstrip('0')}" if fraction else "") + "Z"
    nanoseconds = int((time.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * NANO
    assert format_time(nanoseconds + time.microsecond * 1000) == expected.encode()


@given(st.integers(YEAR_0 * NANO, YEAR_10000 * NANO - 1))
def test_a_time_that_is_written_is_read_again(nanoseconds: int) -> None:
    assert parse_time(format_time(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"2023-11-14T22:13:20Z", 1_700_000_000 * NANO),
        (b"2023-11-14T23:13:20+01:00", 1_700_000_000 * NANO),
        (b"2023-11-14T17:43:20.5-04:30", 1_700_000_000 * NANO + NANO // 2),
        (b"2023-11-14T22:13:20.000000001Z", 1_700_000_000 * NANO + 1),
        (b"0001-01-01T00:00:00Z", -62_135_596_800 * NANO),
        (b"", 0),
    ],
)
def test_times_of_any_zone_are_read(text: bytes, nanoseconds: int) -> None:
    assert parse_time(text) == nanoseconds


@pytest.mark.parametrize("text", [b"yesterday", b"2023-11-14", b"2023-11-14T22:13:20", b"2023-11-14T22:13:20Z\n"])
def test_what_is_no_time_is_none(text: bytes) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize("seconds", [YEAR_0 - 1, YEAR_10000, 1 << 62])
def test_a_year_without_four_digits_is_left_out(seconds: int) -> None:
    assert format_time(seconds * NANO) == b""
