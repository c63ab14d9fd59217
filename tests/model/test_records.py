import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.model.records import (
    MAXIMUM_RECORD,
    STREAMS,
    Block,
    Gap,
    GapReason,
    Promise,
    Stream,
    gap_from_record,
    gap_to_record,
    join_records,
)

GAP = Gap("metrics", 1, 1, None, 0, 0, "", GapReason.CAPACITY)
NUMBERS = st.integers(1, 2**53 - 1)
GAPS = st.builds(
    Gap,
    stream=st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
    epoch=NUMBERS,
    first=st.just(7),
    last=st.none() | st.integers(7, 2**53 - 1),
    first_ms=NUMBERS,
    last_ms=NUMBERS,
    boot_id=st.sampled_from(["", "0123456789abcdef" * 2]),
    reason=st.sampled_from(GapReason),
)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4)


def test_a_block_s_last_number_is_its_first_and_as_many_as_it_has() -> None:
    assert Block("metrics", 1, 5, 3, "0" * 32, 0, 0, b"").last == 7


def test_the_streams_names_and_ranks_are_what_documents_say() -> None:
    assert [(one.name, one.promise, one.rank) for one in STREAMS] == [
        ("audit", Promise.CRITICAL, 0),
        ("gaps", Promise.CRITICAL, 0),
        ("readings-critical", Promise.CRITICAL, 1),
        ("readings", Promise.NORMAL, 2),
        ("metrics", Promise.NORMAL, 3),
        ("logs", Promise.NORMAL, 4),
        ("state", Promise.LATEST, 9),
    ]


@pytest.mark.parametrize("name", ["", "1a", "A", "a/b", "a" * 33, "a\n", "é"])
def test_a_name_that_cannot_be_a_folder_and_a_topic_level_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        Stream(name, Promise.NORMAL, 1, 1)


def test_records_are_joined_by_newlines() -> None:
    assert join_records([b'{"a":1}', b"{}", b'{"b":2}']) == b'{"a":1}\n{}\n{"b":2}'
    assert join_records([b"{}"]) == b"{}"
    assert len(join_records([b'{"a":"' + b"x" * (MAXIMUM_RECORD - 8) + b'"}'])) == MAXIMUM_RECORD


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "there is no record"),
        ([b"{}", b""], "record 1 is not"),
        ([b"[1]"], "record 0 is not"),
        ([b"{}\n{}"], "record 0 is not"),
        ([b"{}", b'{"a":\n1}'], "record 1 is not"),
        ([b"{}", b"{}x"], "record 1 is not"),
        ([b'{"a":1', b"{}"], "record 0 is not"),
        ([b"{}", b'{"a":"' + b"x" * MAXIMUM_RECORD + b'"}'], "record 1 has 65544 bytes"),
    ],
)
def test_what_is_no_record_is_refused_by_its_place(records: list[bytes], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        join_records(records)


@given(GAPS)
def test_a_gap_comes_back_from_its_record(gap: Gap) -> None:
    assert gap_from_record(gap_to_record(gap, 12)) == gap


@given(st.binary(max_size=200))
def test_bytes_that_are_no_gap_are_refused(record: bytes) -> None:
    with pytest.raises(InvalidInputError):
        gap_from_record(record)


@given(GAPS, st.sampled_from(["stream", "epoch", "first", "last", "firstMs", "lastMs", "bootId", "reason"]), JSON)
def test_a_gap_with_a_strange_field_is_a_gap_or_refused(gap: Gap, key: str, value: object) -> None:
    document = json.loads(gap_to_record(gap, 0)) | {key: value}
    try:
        found = gap_from_record(json.dumps(document).encode())
    except InvalidInputError:
        return
    assert isinstance(found, Gap)


def test_a_gap_whose_reason_is_a_list_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="reason"):
        gap_from_record(gap_to_record(GAP, 0).replace(b'"capacity"', b"[]"))


def test_a_deep_or_large_gap_record_is_refused() -> None:
    for record in (b"[" * 1000, b"{" + b" " * 2000 + b"}"):
        with pytest.raises(InvalidInputError):
            gap_from_record(record)
