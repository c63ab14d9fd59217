"""When schedules fire: expressions, time zones, missed times, clocks that jump."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.model.cron import parse_cron
from edge.model.schedule import ON_TIME, ScheduleRecord, begin, due, parse_time, schedule_problems
from edge.model.schedule_expression import next_after, parse_expression, parse_zone
from edge.model.service_documents import CatchUp, DesiredSchedule

VIENNA = ZoneInfo("Europe/Vienna")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def times(text: str, moment: str, count: int = 3, zone: str = "UTC") -> list[str]:
    found = []
    when: datetime | None = parse_time(moment)
    for _ in range(count):
        assert when is not None
        when = next_after(parse_expression(text), when, begin=BEGIN, zone=parse_zone(zone))
        found.append("" if when is None else when.astimezone(parse_zone(zone)).strftime("%m-%dT%H:%M%z"))
        if when is None:
            break
    return found


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        ("rate(5 minutes)", "2026-01-01T00:03Z", ["01-01T00:05+0000", "01-01T00:10+0000"]),
        ("rate(1 day)", "2025-12-30T00:00Z", ["01-01T00:00+0000", "01-02T00:00+0000"]),
        ("cron(0 10 L * ? *)", "2026-01-31T11:00Z", ["02-28T10:00+0000", "03-31T10:00+0000"]),
        ("cron(0 8 1W * ? *)", "2026-01-31T11:00Z", ["02-02T08:00+0000", "03-02T08:00+0000"]),
        ("cron(0 8 31W * ? *)", "2026-05-01T00:00Z", ["05-29T08:00+0000", "07-31T08:00+0000"]),
        ("cron(0 8 LW * ? *)", "2026-05-01T00:00Z", ["05-29T08:00+0000", "06-30T08:00+0000"]),
        ("cron(0 8 ? * TUE#2 *)", "2026-10-01T00:00Z", ["10-13T08:00+0000", "11-10T08:00+0000"]),
        ("cron(0 8 ? * 6L 2026)", "2026-11-28T00:00Z", ["12-25T08:00+0000", ""]),
        ("cron(0/30 8-9 ? * FRI-MON *)", "2026-10-02T08:31Z", ["10-02T09:00+0000", "10-02T09:30+0000"]),
        ("cron(15,45 0 1 JAN,dec ? *)", "2026-01-01T00:15Z", ["01-01T00:45+0000", "12-01T00:15+0000"]),
        ("cron(0 0 29 2 ? *)", "2026-01-01T00:00Z", ["02-29T00:00+0000", "02-29T00:00+0000"]),
        ("at(2026-05-01T10:00:00)", "2026-01-01T00:00Z", ["05-01T10:00+0000", ""]),
    ],
)
def test_an_expression_fires_when_eventbridge_would(text: str, moment: str, expected: list[str]) -> None:
    assert times(text, moment, 2) == expected


def test_a_local_time_that_does_not_exist_is_left_out_and_one_that_comes_twice_counts_once() -> None:
    spring = times("cron(30 2 * * ? *)", "2026-03-27T23:00Z", 3, "Europe/Vienna")
    assert spring == ["03-28T02:30+0100", "03-30T02:30+0200", "03-31T02:30+0200"]
    autumn = times("cron(30 2 * * ? *)", "2026-10-24T00:00Z", 3, "Europe/Vienna")
    assert autumn == ["10-24T02:30+0200", "10-25T02:30+0200", "10-26T02:30+0100"]


@pytest.mark.parametrize(
    "text",
    [
        "", "daily", "rate(0 minutes)", "rate(5 fortnights)", "rate(99999999 days)", "at(tomorrow)", "cron()",
        "cron(0 0 30 2 ? *)", "cron(* * * * * *)", "cron(0 0 ? * ? *)", "cron(61 * * * ? *)", "cron(5-1 * * * ? *)",
        "cron(*/0 * * * ? *)", "cron(0 0 ? * TUE#6 *)", "cron(0 0 0W * ? *)", "cron(0 0 * * ? 1969)",
        "cron(" + "0," * 200 + "0 * * * ? *)",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_expression(text)


@given(st.text(max_size=60) | st.from_regex(r"cron\([0-9*?LW#/,A-Z -]{0,40}\)", fullmatch=True))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        found = parse_expression(text)
    except InvalidInputError:
        return
    after = next_after(found, BEGIN, begin=BEGIN, zone=VIENNA)
    assert after is None or after > BEGIN


@given(
    st.integers(0, 59), st.integers(0, 23), st.integers(1, 12),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - given a zone below
)  # fmt: skip
def test_a_cron_time_is_the_first_minute_that_fits(minute: int, hour: int, month: int, naive: datetime) -> None:
    cron = parse_cron(f"{minute} {hour} * {month} ? *")
    moment = naive.replace(tzinfo=UTC)
    found = cron.after(moment, UTC)
    assert found is not None
    assert (found.minute, found.hour, found.month) == (minute, hour, month)
    assert found > moment
    before = found - timedelta(days=1)
    assert before <= moment or before.month != month


# --- what is due


def schedule(text: str = "rate(10 minutes)", **changes: object) -> ScheduleRecord:
    wire = {"name": "s", "scheduleExpression": text, "taskDefinition": "a:1"} | changes
    return begin(DesiredSchedule.model_validate(wire), BEGIN)


def at(**passed: float) -> datetime:
    return BEGIN + timedelta(**passed)


def test_a_time_is_due_once() -> None:
    record = schedule()
    assert due(record, at(minutes=9), clock_is_good=True).fire == ()
    found = due(record, at(minutes=10, seconds=2), clock_is_good=True)
    assert found.fire == (at(minutes=10),)
    assert found.next == at(minutes=20)
    record = replace(record, handled=found.handled.isoformat())
    assert due(record, at(minutes=10, seconds=3), clock_is_good=True).fire == ()


@pytest.mark.parametrize(
    ("policy", "fired", "missed"), [(CatchUp.SKIP, 0, 6), (CatchUp.ONCE, 1, 5), (CatchUp.ALL, 6, 0)]
)
def test_missed_times_are_caught_up_with_as_the_policy_says(policy: CatchUp, fired: int, missed: int) -> None:
    found = due(schedule(catchUp=policy.value), at(minutes=65), clock_is_good=True)
    assert (len(found.fire), found.missed) == (fired, missed)
    assert found.fire == tuple(at(minutes=10 * n) for n in range(7 - fired, 7))


def test_a_month_of_missed_times_is_bounded() -> None:
    found = due(schedule("rate(1 minute)", catchUp="ALL"), at(days=31), clock_is_good=True)
    assert len(found.fire) == 10
    assert found.missed == 24 * 60 - 10
    assert found.fire[-1] == at(days=31)


def test_a_clock_that_goes_back_starts_nothing_twice() -> None:
    record = schedule()
    found = due(record, at(minutes=10), clock_is_good=False)
    record = replace(record, handled=found.handled.isoformat())
    assert due(record, at(minutes=5), clock_is_good=False).fire == ()
    assert due(record, at(minutes=10), clock_is_good=True).fire == ()


def test_a_time_handled_by_a_wrong_clock_does_not_stop_the_schedule_for_decades() -> None:
    record = replace(schedule(), handled="2099-01-01T00:00:00+00:00")
    assert due(record, at(days=1), clock_is_good=False).fire == ()
    found = due(record, at(days=1), clock_is_good=True)
    record = replace(record, handled=at(days=1).isoformat())
    assert found.next == at(days=1, minutes=10)
    assert due(record, at(days=1, minutes=10), clock_is_good=True).fire == (at(days=1, minutes=10),)


def test_dates_bound_a_schedule_and_a_disabled_one_fires_never() -> None:
    bounded = schedule(startDate=at(hours=1).isoformat(), endDate=at(hours=2).isoformat(), catchUp="ALL")
    assert due(bounded, at(minutes=59), clock_is_good=True).fire == ()
    assert len(due(bounded, at(hours=9), clock_is_good=True).fire) == 7
    assert due(bounded, at(hours=2, seconds=1), clock_is_good=True).next is None
    disabled = due(schedule(state="DISABLED"), at(hours=1), clock_is_good=True)
    assert (disabled.fire, disabled.next, disabled.handled) == ((), None, at(hours=1))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=30), st.sampled_from(list(CatchUp)))
def test_however_often_one_looks_no_time_fires_twice(steps: list[int], policy: CatchUp) -> None:
    record, now, fired = schedule("rate(7 minutes)", catchUp=policy.value), BEGIN, list[datetime]()
    for step in steps:
        now += timedelta(seconds=step)
        found = due(record, now, clock_is_good=True)
        fired.extend(found.fire)
        record = replace(record, handled=found.handled.isoformat())
        assert found.next is None or found.next > now
    assert fired == sorted(set(fired))
    if all(step <= ON_TIME.total_seconds() for step in steps):
        assert len(fired) == (now - BEGIN) // timedelta(minutes=7)


def test_problems_of_a_schedule_are_told_by_field() -> None:
    record = schedule("rate(x)", scheduleExpressionTimezone="Mars/Olympus", startDate="soon")
    assert [path for path, _ in schedule_problems(record.desired)] == [
        "scheduleExpression", "scheduleExpressionTimezone", "startDate",
    ]  # fmt: skip
