"""A schedule on a device: which of its times are due, which were missed, and what becomes of those. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from edge.errors import InvalidInputError
from edge.model.schedule_expression import next_after, parse_expression, parse_zone
from edge.model.service_documents import CatchUp, DesiredSchedule

ON_TIME: Final = timedelta(seconds=60)
"""A time found no longer ago than this was not missed."""
MOST_CAUGHT_UP: Final = 10
"""Missed times that are caught up with one by one; a device that was off for a month has better things to do."""
CLOCK_WAS_WRONG: Final = timedelta(days=1)
"""A time handled further in the future than this was handled by a clock that was wrong."""


@dataclass(frozen=True, slots=True)
class ScheduleRecord:
    """What is remembered of a schedule.

    Attributes:
        desired: As the desired state has it.
        begun: When the device first had it, RFC 3339; a rate without a start date counts from here.
        handled: No time up to this one is started again, RFC 3339.
        missed: Times that were left out, for whatever reason, since it began.
    """

    desired: DesiredSchedule
    begun: str
    handled: str
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """What a look at the clock says.

    Attributes:
        fire: The times that are to be started now, oldest first.
        missed: So many times are left out.
        handled: Up to where all is said now.
        next: The next time, or None when there is none any more.
    """

    fire: tuple[datetime, ...]
    missed: int
    handled: datetime
    next: datetime | None


def begin(desired: DesiredSchedule, now: datetime) -> ScheduleRecord:
    """Return the schedule as it begins: what was due before the device had it is none of its business."""
    return ScheduleRecord(desired, now.isoformat(), now.isoformat())


def due(record: ScheduleRecord, now: datetime, *, clock_is_good: bool) -> Due:
    """Say what is due at `now`, UTC.

    A clock that went back starts nothing twice. A clock known good that stands far before what was handled shows that
    the other one was wrong, and the schedule goes on from now.
    """
    desired = record.desired
    expression, zone = parse_expression(desired.schedule_expression), parse_zone(desired.schedule_expression_timezone)
    handled = parse_time(record.handled)
    if clock_is_good and handled - now > CLOCK_WAS_WRONG:
        handled = now
    begun = parse_time(desired.start_date or record.begun)
    end = parse_time(desired.end_date) if desired.end_date else None

    def following(moment: datetime) -> datetime | None:
        found = next_after(expression, moment, begin=begun, zone=zone)
        return None if found is None or (end is not None and found > end) else found

    if desired.state == "DISABLED":
        return Due((), 0, max(handled, now), None)
    oldest = now - timedelta(seconds=desired.maximum_event_age_in_seconds)
    times: list[datetime] = []
    moment = following(max(handled, oldest))
    while moment is not None and moment <= now:
        times.append(moment)
        moment = following(moment)
    fire = _choose(times, now, desired.catch_up)
    return Due(fire, len(times) - len(fire), max(handled, now) if times else handled, moment)


def _choose(times: list[datetime], now: datetime, policy: CatchUp) -> tuple[datetime, ...]:
    punctual = [time for time in times if now - time <= ON_TIME][-1:]
    late = [time for time in times if time not in punctual]
    match policy:
        case CatchUp.SKIP:
            return tuple(punctual)
        case CatchUp.ONCE:
            return tuple(punctual or late[-1:])
        case CatchUp.ALL:
            return tuple((late + punctual)[-MOST_CAUGHT_UP:])


def schedule_problems(desired: DesiredSchedule) -> list[tuple[str, str]]:
    """Return what is wrong with a schedule, as `(path, message)`."""
    problems = []
    checks = (
        ("scheduleExpression", lambda: parse_expression(desired.schedule_expression)),
        ("scheduleExpressionTimezone", lambda: parse_zone(desired.schedule_expression_timezone)),
        ("startDate", lambda: parse_time(desired.start_date) if desired.start_date else None),
        ("endDate", lambda: parse_time(desired.end_date) if desired.end_date else None),
    )
    for path, check in checks:
        try:
            check()
        except InvalidInputError as error:
            problems.append((path, str(error)))
    return problems


def parse_time(text: str) -> datetime:
    """Return an RFC 3339 time in UTC; one without a zone is UTC.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(f"{text[:40]!r} is not a time (write 2027-01-31T03:00:00Z)") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
