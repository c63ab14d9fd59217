"""An audit trail as it came: what was changed, removed, put in or moved is found; a loss that was told is no such."""

import json
from collections.abc import Sequence

import pytest

from edge.model.audit import Arrived, Head, Verified, next_record, verify_trail

COUNT = 12


def trail(count: int = COUNT, chain: str = "0" * 16, *, epoch: int = 1) -> tuple[list[Arrived], Head]:
    head, made = Head(chain), []
    for number in range(1, count + 1):
        record, head = next_record(head, number, "command", {"op": "stopTask", "id": f"command-{number}"})
        made.append(Arrived(epoch, number, record))
    return made, head


def broken(verified: Verified) -> list[str]:
    return [finding.what for finding in verified.findings if finding.broken]


def judged(records: Sequence[Arrived], lost: Sequence[tuple[int, int, int | None]] = ()) -> Verified:
    return verify_trail(records, lost, told_head=trail()[1])


def test_a_whole_trail_is_intact_and_counts_what_came_twice_once() -> None:
    records, head = trail()
    found = judged([*records, *(Arrived(2, n, one.record) for n, one in enumerate(records[-3:], 1))])
    assert (found.records, found.heads, found.findings, found.intact) == (COUNT, (head,), (), True)


@pytest.mark.parametrize("index", range(COUNT))
def test_a_changed_record_is_found_also_the_newest(index: int) -> None:
    records, _ = trail()
    body = json.loads(records[index].record) | {"id": "another"}
    records[index] = Arrived(1, index + 1, json.dumps(body, separators=(",", ":")).encode())
    assert broken(judged(records))


@pytest.mark.parametrize("index", range(COUNT))
def test_no_changed_byte_passes(index: int) -> None:
    records, _ = trail()
    good = records[index].record
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1
        changed = [*records[:index], Arrived(1, index + 1, bytes(bad)), *records[index + 1 :]]
        assert broken(judged(changed)), bytes(bad)


@pytest.mark.parametrize("index", range(COUNT - 1))
def test_a_removed_record_is_found(index: int) -> None:
    records, _ = trail()
    del records[index]
    assert broken(judged(records)) == [f"missing, and nobody told of it: records {index + 1}"]


@pytest.mark.parametrize("index", range(COUNT - 1))
def test_records_that_changed_places_are_found(index: int) -> None:
    records, _ = trail()
    first, second = records[index : index + 2]
    records[index : index + 2] = [Arrived(1, index + 1, second.record), Arrived(1, index + 2, first.record)]
    assert broken(judged(records))


@pytest.mark.parametrize("index", range(COUNT))
def test_a_record_that_was_put_in_is_found(index: int) -> None:
    records, _ = trail()
    body = json.loads(records[index].record) | {"id": "put in"}
    records.insert(index, Arrived(1, index + 1, json.dumps(body).encode()))
    assert broken(judged(records))


def test_an_end_that_was_cut_off_is_told_by_the_device_s_own_word() -> None:
    found = judged(trail()[0][:-2])
    assert [finding.what for finding in found.findings] == [f"not here yet: records {COUNT - 1} to {COUNT}"]


@pytest.mark.parametrize("lost", [[(1, 4, 6)], [(1, 1, 20)], [(1, 4, 4), (1, 5, 6)]])
def test_what_was_told_as_lost_is_no_tampering(lost: list[tuple[int, int, int | None]]) -> None:
    records, _ = trail()
    found = judged([*records[:3], *records[6:]], lost)
    assert found.intact
    assert [finding.what for finding in found.findings] == ["lost on the device, and told: records 4 to 6"]


@pytest.mark.parametrize("lost", [[], [(1, 4, 5)], [(2, 4, 6)], [(1, 8, 20)], [(1, 1, 3)]])
def test_more_that_is_missing_than_was_told_is_tampering(lost: list[tuple[int, int, int | None]]) -> None:
    records, _ = trail()
    assert not judged([*records[:3], *records[6:]], lost).intact


def test_a_loss_that_was_told_hides_no_change_elsewhere() -> None:
    records, _ = trail()
    body = json.loads(records[8].record) | {"id": "another"}
    records[8] = Arrived(1, 9, json.dumps(body, separators=(",", ":")).encode())
    assert broken(judged([*records[:3], *records[6:]], [(1, 4, 6)]))


def test_an_epoch_that_ended_without_a_count_may_have_lost_its_end() -> None:
    records, _ = trail()
    moved = [Arrived(2, n, one.record) for n, one in enumerate(records[6:], 1)]
    assert judged([*records[:3], *moved], [(1, 4, None)]).intact
    assert not judged([*records[:3], *moved], [(2, 4, None)]).intact


def test_another_trail_is_told_and_its_beginning_must_be_there() -> None:
    first, _ = trail(3)
    second, head = trail(4, "f" * 16, epoch=2)
    found = verify_trail([*first, *second], [], told_head=head)
    assert found.intact
    assert ["a new trail begins" in finding.what for finding in found.findings] == [True]
    assert not verify_trail([*first, *second[1:]], [], told_head=head).intact


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"{}", b'{"chain":1}', b"\xff", b'{"chain":"' + b"0" * 16 + b'","n":true}']
)
def test_what_is_no_record_is_found(record: bytes) -> None:
    records, _ = trail()
    assert broken(judged([*records, Arrived(1, COUNT + 1, record)]))
