"""Start profiles: what is read, refined, merged, bounded."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.model import start_profile
from edge.model.start_profile import (
    MAX_AGE,
    MAX_RANGES,
    FileRange,
    Gaps,
    StartProfile,
    merged,
    profile_of,
    read_profile,
    refined,
    without_overlaps,
)
from edge.model.start_profiles_document import decode_profiles, encode_profiles


def profile(*ranges: FileRange, starts: int = 1, image_id: str = "a" * 64) -> StartProfile:
    return StartProfile("reg.example/app", image_id, "sha256:x", "linux/arm64", starts, ranges)


A, B, C = FileRange("a", 0, 100), FileRange("b", 0, 100), FileRange("c", 0, 100)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20))))
def test_what_was_not_covered_is_told_once(ranges: list[tuple[int, int]]) -> None:
    gaps, covered = Gaps(), set[int]()
    for start, size in ranges:
        new = {byte for first, last in gaps.add(start, start + size) for byte in range(first, last)}
        assert new == set(range(start, start + size)) - covered
        covered |= new


def test_a_byte_is_named_where_it_was_first_read() -> None:
    found = without_overlaps([FileRange("a", 10, 20), B, FileRange("a", 0, 30)])
    assert found == (FileRange("a", 10, 20), B, FileRange("a", 0, 10), FileRange("a", 20, 30))


def test_ranges_that_touch_become_one() -> None:
    assert without_overlaps([FileRange("a", 0, 10), FileRange("a", 10, 30)]) == (FileRange("a", 0, 30),)


def test_a_later_start_s_order_counts_and_what_it_did_not_read_ages_and_goes() -> None:
    known = profile(A, B)
    for age in range(1, MAX_AGE + 1):
        known = refined(known, profile(B, C), ageing=True)
        assert known.ranges == (B, C, replace(A, age=age))
    known = refined(known, profile(B, C), ageing=True)
    assert (known.ranges, known.starts) == ((B, C), MAX_AGE + 2)


def test_what_is_read_again_is_young_again() -> None:
    known = refined(profile(A, B), profile(B), ageing=True)
    assert refined(known, profile(A, B), ageing=True).ranges == (A, B)


def test_a_start_of_which_not_all_was_seen_lets_nothing_age() -> None:
    known = profile(A, B)
    for _ in range(10):
        known = refined(known, profile(B), ageing=False)
    assert known.ranges == (B, A)


def test_of_many_devices_what_few_read_is_left_out() -> None:
    fleet = [profile(A, B, starts=3), *[profile(A, B)] * 4, profile(A, C), profile(A, B)]
    found = merged(fleet)
    assert ([one.path for one in found.ranges], found.starts) == (["a", "b"], 9)


def test_profiles_of_different_images_are_not_merged() -> None:
    with pytest.raises(InvalidInputError):
        merged([profile(A), profile(A, image_id="b" * 64)])
    with pytest.raises(InvalidInputError):
        merged([])


def test_a_profile_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(without_overlaps(FileRange(str(at), 0, 1) for at in range(MAX_RANGES + 5))) == MAX_RANGES
    monkeypatch.setattr(start_profile, "MAX_START_BYTES", 150)
    assert without_overlaps([A, B]) == (A,)


def test_what_is_written_is_read_again() -> None:
    known = profile(A, FileRange("b\udcff", 5, 6, 2))
    assert read_profile(known.encode()) == known


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": 2},
        {"imageId": None},
        {"image": "x" * 2000},
        {"starts": True},
        {"starts": -1},
        {"ranges": {}},
        {"ranges": [["a", 0, 1, 0]] * (MAX_RANGES + 1)},
        {"ranges": [["../a", 0, 1, 0]]},
        {"ranges": [["a\0", 0, 1, 0]]},
        {"ranges": [["a", 1, 1, 0]]},
        {"ranges": [["a", -1, 1, 0]]},
        {"ranges": [["a", 0, 1 << 60, 0]]},
        {"ranges": [["a", 0.5, 1, 0]]},
        {"ranges": [["", 0, 1, 0]]},
        {"ranges": ["a"]},
        {"ranges": [["a", 0, 1]]},
    ],
)
def test_what_is_no_profile_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        profile_of(profile(A).to_json() | change)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"[" * 100_000, b" " * (5 << 20)])
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_profile(data)


def test_a_device_tells_as_many_as_fit_the_first_ones_first() -> None:
    many = [replace(profile(*(FileRange(f"f{n}/{i}", 0, 9) for i in range(300))), image=f"r/{n}") for n in range(40)]
    data = encode_profiles(many, 20_000)
    assert len(data) <= 20_000
    found = decode_profiles(json.loads(data))
    assert 3 < len(found) < 40
    assert found == tuple(many[: len(found)])


def test_a_told_profile_that_is_none_is_left_out() -> None:
    document = json.loads(encode_profiles([profile(A)], 10_000))
    bad = [{}, 3, {"data": "%%"}, {"data": "AAAA"}, {"data": 3}]
    assert decode_profiles(document | {"profiles": [*bad, *document["profiles"]]}) == (profile(A),)
    with pytest.raises(InvalidInputError):
        decode_profiles({"schemaVersion": 1, "profiles": 3})
