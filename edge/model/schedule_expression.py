"""When a schedule fires: `rate(…)`, `cron(…)` and `at(…)` as Amazon EventBridge Scheduler writes them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge.errors import InvalidInputError
from edge.model.cron import Cron, parse_cron

_EXPRESSION: Final = re.compile(r"(rate|cron|at)\((.{1,256})\)")
_RATE: Final = re.compile(r"([1-9][0-9]{0,8}) (minutes?|hours?|days?)")
_UNITS: Final = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_LONGEST: Final = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Rate:
    """Every so often, counted from the schedule's beginning."""

    period: timedelta


@dataclass(frozen=True, slots=True)
class Once:
    """At one local time."""

    naive: datetime


Expression = Rate | Cron | Once


def parse_expression(text: str) -> Expression:
    """Read a schedule expression.

    Raises:
        InvalidInputError: It is none.
    """
    found = _EXPRESSION.fullmatch(text.strip())
    if found is None:
        raise InvalidInputError(
            f"{text[:80]!r} is no schedule expression",
            hint="Write rate(5 minutes), cron(0 3 * * ? *) or at(2027-01-31T03:00:00).",
        )
    kind, inside = found[1], found[2].strip()
    if kind == "cron":
        return parse_cron(inside)
    return _rate(inside) if kind == "rate" else _once(inside)


def parse_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name; empty means UTC.

    Raises:
        InvalidInputError: This machine does not know it.
    """
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidInputError(
            f"time zone {name[:64]!r} is not known here",
            hint="Write an IANA name such as Europe/Vienna; the package tzdata has them.",
        ) from error


def next_after(expression: Expression, moment: datetime, *, begin: datetime, zone: tzinfo) -> datetime | None:
    """Return the first time later than `moment` at which it fires, in UTC; None when there is none any more.

    Args:
        expression: When.
        moment: With a zone.
        begin: When the schedule began: what a rate counts from, and nothing fires before it.
        zone: For `cron` and `at`.
    """
    moment = max(moment, begin - timedelta(microseconds=1))
    match expression:
        case Rate(period):
            passed = (moment - begin) // period
            return begin + (passed + 1) * period
        case Cron():
            return expression.after(moment, zone)
        case Once(naive):
            instant = naive.replace(tzinfo=zone).astimezone(UTC)
            return instant if instant > moment else None
        case _:
            assert_never(expression)


def _rate(inside: str) -> Rate:
    found = _RATE.fullmatch(inside)
    if found is None:
        raise InvalidInputError(f"rate({inside[:40]}): write a number and minutes, hours or days")
    period = int(found[1]) * _UNITS[found[2].rstrip("s")]
    if period > _LONGEST:
        raise InvalidInputError(f"rate({inside}): {_LONGEST.days} days are the most")
    return Rate(period)


def _once(inside: str) -> Once:
    try:
        naive = datetime.strptime(inside, "%Y-%m-%dT%H:%M:%S")  # noqa: DTZ007 - a local time; its zone is told beside
    except ValueError as error:
        raise InvalidInputError(f"at({inside[:40]}): write at(yyyy-mm-ddThh:mm:ss)") from error
    return Once(naive)
