"""Cron expressions as Amazon EventBridge writes them: six fields, in a time zone, with `?`, `L`, `W` and `#`.

Source: EventBridge Scheduler user guide, "Schedule types", cron-based schedules. `cron(minutes hours day-of-month month
day-of-week year)`; one of the two day fields is `?`. Where a time zone springs forward the times that do not exist are
left out; where it falls back the times that come twice count once, the first time.
"""

import calendar
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from edge.errors import InvalidInputError

FIRST_YEAR, LAST_YEAR = 1970, 2199
_MONTHS: Final = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = dict(zip(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), range(1, 8), strict=True))
_FIELDS: Final = 6
_NUMBER: Final = re.compile(r"[0-9]{1,4}")
_WEEK: Final = 7
_FIFTH: Final = 5
MAXIMUM_LENGTH: Final = 256

_DaysOf = Callable[[int, int], frozenset[int]]


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression that was read.

    Attributes:
        text: What it was read from.
        days_of: From year and month to the days of that month that fit.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    years: frozenset[int]
    days_of: _DaysOf

    def after(self, moment: datetime, zone: tzinfo) -> datetime | None:
        """Return the first time later than `moment`, in UTC, or None when there is none any more."""
        local = moment.astimezone(zone)
        for day in self._days(local.date()):
            for naive in self._times(day):
                found = _instant(naive, zone)
                if found is not None and found > moment:
                    return found
        return None

    def _days(self, first: date) -> Iterator[date]:
        for year in range(max(first.year, FIRST_YEAR), LAST_YEAR + 1):
            if year not in self.years:
                continue
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for day in sorted(self.days_of(year, month)):
                    if (found := date(year, month, day)) >= first:
                        yield found

    def _times(self, day: date) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                yield datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001 - local; its zone comes next


def parse_cron(text: str) -> Cron:
    """Read the inside of `cron(…)`.

    Raises:
        InvalidInputError: It is no such expression; the message names the field.
    """
    fields = text.split()
    if len(text) > MAXIMUM_LENGTH or len(fields) != _FIELDS:
        raise InvalidInputError(
            f"cron({text[:60]}) has {len(fields)} fields; there must be {_FIELDS}: minutes hours day-of-month month "
            "day-of-week year"
        )
    minutes, hours, month_days, months, week_days, years = (field.upper() for field in fields)
    if (month_days == "?") == (week_days == "?"):
        raise InvalidInputError(f"cron({text}): exactly one of day-of-month and day-of-week must be `?`")
    cron = Cron(
        text=text,
        minutes=_numbers(minutes, "minutes", 0, 59),
        hours=_numbers(hours, "hours", 0, 23),
        months=_numbers(months, "month", 1, 12, _MONTHS),
        years=frozenset(_numbers(years, "year", FIRST_YEAR, LAST_YEAR)),
        days_of=_month_days(month_days) if week_days == "?" else _week_days(week_days),
    )
    if not any(cron.days_of(year, month) for year in _leap_cycle(cron.years) for month in cron.months):
        raise InvalidInputError(f"cron({text}) names a day that never comes")
    return cron


def _leap_cycle(years: frozenset[int]) -> list[int]:
    """Enough years that each day that comes at all comes in them: the calendar repeats after 28, save for 2100."""
    return sorted(years)[:40]


def _instant(naive: datetime, zone: tzinfo) -> datetime | None:
    """Return the instant a local time means, the first when it means two, or None when it means none."""
    found = naive.replace(tzinfo=zone, fold=0).astimezone(UTC)
    return found if found.astimezone(zone).replace(tzinfo=None) == naive else None


def _numbers(field: str, what: str, low: int, high: int, names: Mapping[str, int] | None = None) -> tuple[int, ...]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(first, what, low, high, names)
            end = _number(last, what, low, high, names) if dash else (high if slash else begin)
        stride = _number(step, what, 1, max(high, 1)) if slash else 1
        if begin <= end:
            found.update(range(begin, end + 1, stride))
        elif names is not None:
            # FRI-MON, NOV-FEB: around the end.
            around = [*range(begin, high + 1), *range(low, end + 1)]
            found.update(around[::stride])
        else:
            raise InvalidInputError(f"cron: {what} {part!r} runs backwards")
    return tuple(sorted(found))


def _number(text: str, what: str, low: int, high: int, names: Mapping[str, int] | None = None) -> int:
    by_name = {name.upper(): number for name, number in (names or {}).items()}
    if text in by_name:
        return by_name[text]
    if not _NUMBER.fullmatch(text) or not low <= int(text) <= high:
        raise InvalidInputError(f"cron: {what} {text[:20]!r} is not a number from {low} to {high}")
    return int(text)


def _month_days(field: str) -> _DaysOf:
    if field == "L":
        return lambda year, month: frozenset({_length(year, month)})
    if field == "LW":
        return lambda year, month: frozenset({_nearest_weekday(year, month, _length(year, month))})
    if field.endswith("W"):
        day = _number(field[:-1], "day-of-month", 1, 31)
        return lambda year, month: (
            frozenset({_nearest_weekday(year, month, day)}) if day <= _length(year, month) else frozenset()
        )
    days = _numbers(field, "day-of-month", 1, 31)
    return lambda year, month: frozenset(day for day in days if day <= _length(year, month))


def _week_days(field: str) -> _DaysOf:
    if "#" in field:
        name, _, which = field.partition("#")
        weekday, number = _weekday(name), _number(which, "day-of-week", 1, _FIFTH)
        return lambda year, month: frozenset(_on(year, month, {weekday})[number - 1 : number])
    if field.endswith("L") and field != "L":
        weekday = _weekday(field[:-1])
        return lambda year, month: frozenset(_on(year, month, {weekday})[-1:])
    days = frozenset(_numbers("7" if field == "L" else field, "day-of-week", 1, _WEEK, _WEEKDAYS))
    return lambda year, month: frozenset(_on(year, month, days))


def _weekday(text: str) -> int:
    return _number(text, "day-of-week", 1, _WEEK, _WEEKDAYS)


def _on(year: int, month: int, weekdays: set[int] | frozenset[int]) -> list[int]:
    """Return the days of the month on these weekdays, Sunday being 1."""
    days = range(1, _length(year, month) + 1)
    return [day for day in days if date(year, month, day).isoweekday() % _WEEK + 1 in weekdays]


def _nearest_weekday(year: int, month: int, day: int) -> int:
    """Return the working day nearest to a day, in the same month."""
    wanted = date(year, month, day)
    saturday, sunday = 6, 7
    if wanted.isoweekday() == saturday:
        return day - 1 if day > 1 else day + 2
    if wanted.isoweekday() == sunday:
        return day + 1 if (wanted + timedelta(days=1)).month == month else day - 2
    return day


def _length(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]
