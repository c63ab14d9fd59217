import json
from typing import Any

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.prefetch import SpanRange, merge_ranges, read_prefetch, write_prefetch


def artifact(*spans: Any, version: Any = "1.0") -> bytes:
    return json.dumps({"version": version, "prefetch_spans": list(spans)}).encode()


def test_an_artifact_has_the_bytes_that_soci_writes() -> None:
    """Written by `soci create --prefetch-file` for four files of a Python image."""
    made = write_prefetch([SpanRange(0, 0), SpanRange(14, 20), SpanRange(103, 103)])
    assert made == (
        b'{"version":"1.0","prefetch_spans":[{"start_span":0,"end_span":0},'
        b'{"start_span":14,"end_span":20},{"start_span":103,"end_span":103}]}'
    )


def test_ranges_come_back_in_the_order_of_their_priority() -> None:
    ranges = [SpanRange(5, 9, 2), SpanRange(0, 1), SpanRange(3, 3, 1), SpanRange(20, 20, -1)]
    assert read_prefetch(write_prefetch(ranges), 21) == tuple(sorted(ranges, key=lambda item: item.priority))


def test_ranges_of_one_priority_keep_their_order() -> None:
    ranges = (SpanRange(5, 9), SpanRange(0, 1), SpanRange(3, 3))
    assert read_prefetch(write_prefetch(ranges), 10) == ranges


def test_ranges_that_overlap_or_touch_become_one() -> None:
    ranges = [SpanRange(7, 9), SpanRange(0, 2), SpanRange(3, 3), SpanRange(8, 8), SpanRange(5, 5)]
    assert merge_ranges(ranges) == (SpanRange(0, 3), SpanRange(5, 5), SpanRange(7, 9))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        artifact(),
        artifact({"start_span": 0, "end_span": 0}, version="2.0"),
        artifact({"start_span": 0, "end_span": 0}, version=1.0),
        artifact({"start_span": 1, "end_span": 0}),
        artifact({"start_span": -1, "end_span": 0}),
        artifact({"start_span": 0, "end_span": 10}),
        artifact({"start_span": 0, "end_span": 1 << 40}),
        artifact({"start_span": 0}),
        artifact({"start_span": True, "end_span": True}),
        artifact({"start_span": 0.0, "end_span": 1}),
        artifact({"start_span": 0, "end_span": 0, "priority": 1 << 40}),
        artifact({"start_span": 0, "end_span": 0, "priority": None}),
        artifact(7),
        json.dumps({"version": "1.0", "prefetch_spans": {}}).encode(),
    ],
)
def test_what_names_no_spans_of_the_layer_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_prefetch(data, 10)


@pytest.mark.parametrize("ranges", [[], [SpanRange(2, 1)], [SpanRange(-1, 1)], [SpanRange(0, 1 << 31)]])
def test_what_is_no_range_is_not_written(ranges: list[SpanRange]) -> None:
    with pytest.raises(InvalidInputError):
        write_prefetch(ranges)
