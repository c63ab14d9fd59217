"""Times in a zTOC: RFC 3339 with as many digits of a second as are needed, from nanoseconds since 1970 UTC."""

import re
from functools import lru_cache
from typing import Final

_NANO: Final = 1_000_000_000
_DAY: Final = 86_400
_DAYS_TO_1970: Final = 719_468
"""Days from 0000-03-01 to 1970-01-01."""
_ERA_DAYS: Final = 146_097
"""Days in 400 years."""
_MAX_YEAR: Final = 9999

_FORM = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII | re.DOTALL
)


def _civil(days: int) -> tuple[int, int, int]:
    era, day = divmod(days + _DAYS_TO_1970, _ERA_DAYS)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day_of_year = day - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    from_march = 10
    following = month >= from_march
    return (
        year + era * 400 + following,
        month - 9 if following else month + 3,
        day_of_year - (153 * month + 2) // 5 + 1,
    )


def _days(year: int, month: int, day: int) -> int:
    march_year = year - (month < 3)  # noqa: PLR2004 - the year that begins in March
    era, in_era = divmod(march_year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * _ERA_DAYS + in_era * 365 + in_era // 4 - in_era // 100 + day_of_year - _DAYS_TO_1970


@lru_cache(maxsize=4096)
def format_time(nanoseconds: int) -> bytes:
    """Write a time in UTC; empty when its year has no four digits, as SOCI's writer leaves it."""
    seconds, fraction = divmod(nanoseconds, _NANO)
    days, second = divmod(seconds, _DAY)
    year, month, day = _civil(days)
    if not 0 <= year <= _MAX_YEAR:
        return b""
    text = f"{year:04}-{month:02}-{day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return (text + (f".{fraction:09}".rstrip("0") if fraction else "") + "Z").encode()


@lru_cache(maxsize=4096)
def parse_time(text: bytes) -> int | None:
    """Read a time with any offset from UTC; `None` if it is not one. An empty text is 1970."""
    if not text:
        return 0
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    shift = 60 * (60 * int(found[9]) + int(found[10])) if found[8] else 0
    seconds = _DAY * _days(year, month, day) + 3600 * hour + 60 * minute + second
    seconds += shift if found[8] == b"-" else -shift
    return seconds * _NANO + int((found[7] or b"").ljust(9, b"0"))
