"""Prefetch artifacts: which spans of a layer to fetch first.

Format: awslabs/soci-snapshotter `soci/prefetch.go`. `priority` is written by no SOCI tool so far and ignored by its
snapshotter; here it carries the order of a start profile, lowest first.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from edge.errors import InvalidInputError
from edge.images.soci.manifests import parse_document

_VERSION: Final = "1.0"
_MAX_RANGES: Final = 1 << 20
_MAX_NUMBER: Final = (1 << 31) - 1


class SpanRange(NamedTuple):
    """Spans `start` to `end`, both included; a lower `priority` comes first."""

    start: int
    end: int
    priority: int = 0


def write_prefetch(ranges: Iterable[SpanRange]) -> bytes:
    """Encode ranges as they are given.

    Raises:
        InvalidInputError: There are none, or one is not a range.
    """
    entries = [_range_json(_check(item)) for item in ranges]
    if not entries:
        raise InvalidInputError("a prefetch artifact needs at least one range of spans")
    return json.dumps({"version": _VERSION, "prefetch_spans": entries}, separators=(",", ":")).encode()


def _range_json(item: SpanRange) -> dict[str, int]:
    return {"start_span": item.start, "end_span": item.end} | ({"priority": item.priority} if item.priority else {})


def read_prefetch(data: bytes, span_count: int) -> tuple[SpanRange, ...]:
    """Decode an artifact; ranges in the order in which to fetch them.

    Args:
        data: The artifact.
        span_count: How many spans the layer has; ranges beyond are refused.

    Raises:
        InvalidInputError: It is malformed, of another version, or empty.
    """
    document = parse_document(data, "the prefetch artifact")
    entries = document.get("prefetch_spans")
    if document.get("version") != _VERSION or not isinstance(entries, list) or not 0 < len(entries) <= _MAX_RANGES:
        raise InvalidInputError(f"the prefetch artifact is empty, or not of version {_VERSION}")
    ranges = [_check(_range(entry)) for entry in entries]
    if any(item.end >= span_count for item in ranges):
        raise InvalidInputError(f"the prefetch artifact names spans that the layer's {span_count} do not include")
    return tuple(sorted(ranges, key=lambda item: item.priority))


def _range(entry: object) -> SpanRange:
    found: dict[str, Any] = entry if isinstance(entry, dict) else {}
    numbers = [found.get("start_span"), found.get("end_span"), found.get("priority", 0)]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise InvalidInputError("a range of the prefetch artifact is not start_span, end_span and priority")
    return SpanRange(*numbers)


def _check(item: SpanRange) -> SpanRange:
    if not 0 <= item.start <= item.end <= _MAX_NUMBER or abs(item.priority) > _MAX_NUMBER:
        raise InvalidInputError(f"spans {item.start} to {item.end}, priority {item.priority}: not a range")
    return item


def merge_ranges(ranges: Iterable[SpanRange]) -> tuple[SpanRange, ...]:
    """Join ranges that overlap or touch, as `soci` does for the files to prefetch; priorities are dropped."""
    merged = list[SpanRange]()
    for item in sorted(ranges):
        if merged and item.start <= merged[-1].end + 1:
            merged[-1] = SpanRange(merged[-1].start, max(merged[-1].end, item.end))
        else:
            merged.append(SpanRange(item.start, item.end))
    return tuple(merged)
