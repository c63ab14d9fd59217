from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.agent.engine.believing import Belief
from edge.agent.engine.intake import Judge
from edge.agent.store.state import Change, StateStore
from edge.errors import StoreError
from edge.model.device_policy import DevicePolicy
from edge.model.trust import TrustedSet, make_bundle
from edge.model.trust_chain import write_chain
from tests.model.signers import MemorySigner, trust_bundle

ALICE, BOB = MemorySigner(), MemorySigner()
HIGHEST = 2**53 - 1


def bundle(keys: Sequence[MemorySigner], version: int, signers: Sequence[MemorySigner] = (ALICE,)) -> bytes:
    """Root is Alice's; `keys` sign desired states."""
    return make_bundle(trust_bundle([ALICE], version=version, assignments=keys), signers)


BOTH = bundle([ALICE, BOB], 1)
ONE = bundle([ALICE], 2)


class Device:
    def __init__(self, folder: Path) -> None:
        self.store = StateStore(folder / "state.db")

    def belief(self, handed_over: bytes = BOTH, revision: int = 0) -> Belief:
        judge = Judge(TrustedSet.from_bundle(handed_over), "shop", "pi-1", DevicePolicy())
        return Belief(self.store, judge, revision)

    def accept(self, belief: Belief, revision: int, *signers: MemorySigner) -> None:
        ids = [one.key_id for one in signers]
        self.store.commit(Change(meta=belief.counted(ids, revision)))
        belief.count(ids, revision)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_a_revision_counts_against_every_key(device: Device) -> None:
    belief = device.belief()
    device.accept(belief, 7, ALICE)
    device.accept(belief, 9, BOB)
    assert belief.in_force == device.belief().in_force == 9


def test_a_store_from_before_the_counts_goes_on_where_it_was(device: Device) -> None:
    assert device.belief(revision=41).in_force == 41


def test_a_thief_who_signed_the_highest_number_has_not_locked_the_device_for_ever(device: Device) -> None:
    belief = device.belief()
    device.accept(belief, 7, ALICE)
    device.accept(belief, HIGHEST, BOB)
    assert belief.follow(write_chain([BOTH, ONE]))
    assert (belief.version, belief.in_force) == (2, 7)
    device.accept(belief, 8, ALICE)
    again = device.belief()
    assert (again.version, again.in_force) == (2, 8)


def test_a_key_that_comes_back_is_as_far_as_the_others(device: Device) -> None:
    belief = device.belief()
    device.accept(belief, HIGHEST, BOB)
    device.accept(belief, 7, ALICE)
    belief.follow(write_chain([ONE]))
    device.accept(belief, 8, ALICE)
    belief.follow(write_chain([bundle([ALICE, BOB], 3)]))
    assert device.belief().in_force == 8


def test_a_refused_chain_is_told_and_changes_nothing(device: Device) -> None:
    belief = device.belief()
    wrong = make_bundle(trust_bundle([BOB], version=2), [BOB])
    assert not belief.follow(write_chain([wrong]))
    assert belief.version == 1
    assert "trust bundle 2" in belief.describe()[0]["problem"]
    belief.follow(write_chain([BOTH, ONE]))
    assert belief.describe() == [{"version": 2}]


def test_a_bundle_that_cannot_be_stored_does_not_count(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    belief = device.belief()

    def fail(_change: Change) -> None:
        raise StoreError("full")

    monkeypatch.setattr(device.store, "commit", fail)
    with pytest.raises(StoreError):
        belief.follow(write_chain([ONE]))
    assert belief.version == 1


def test_a_bundle_handed_over_anew_is_believed(device: Device) -> None:
    device.belief().follow(write_chain([ONE]))
    other = make_bundle(trust_bundle([BOB]), [BOB])
    assert device.belief(other).judge.trust.bundle == other
    assert device.belief().version == 2
