"""Times as they are written down: RFC 3339 in UTC with milliseconds."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Write a time down.

    >>> timestamp(datetime(2026, 1, 2, 3, 4, 5, 6789, UTC))
    '2026-01-02T03:04:05.006Z'
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
