import json
from pathlib import Path
from typing import Any

import pytest

from edge.agent.engine.believing import Belief
from edge.agent.engine.clock_floor import CLOCK_FLOOR, ClockFloor
from edge.agent.engine.heads import Heads
from edge.agent.engine.intake import Judge
from edge.agent.store.state import Change, StateStore
from edge.model.device_policy import DevicePolicy
from edge.model.documents import DESIRED_STATE_TYPE, HEAD_TYPE
from edge.model.envelope import seal
from edge.model.trust import BundleRole, Role, TrustedSet, make_bundle
from tests.model.signers import MemorySigner, trust_bundle

ALICE, TICKER, MALLORY = MemorySigner(), MemorySigner(), MemorySigner()
_BUNDLE = trust_bundle([ALICE], assignments=[ALICE, TICKER])
TRUSTED = TrustedSet.from_bundle(
    make_bundle(
        _BUNDLE.model_copy(
            update={
                "roles": {
                    **_BUNDLE.roles,
                    Role.DESIRED_STATE: BundleRole(key_ids=[ALICE.key_id], threshold=1),
                    Role.HEAD: BundleRole(key_ids=[TICKER.key_id], threshold=1),
                }
            }
        ),
        [ALICE],
    )
)


@pytest.fixture
def heads(tmp_path: Path) -> Heads:
    judge = Judge(TRUSTED, "shop", "pi-1", DevicePolicy())
    return Heads(Belief(StateStore(tmp_path / "state.db"), judge, 7))


def answer(question: bytes, signer: MemorySigner = TICKER, kind: str = HEAD_TYPE, **other: object) -> bytes:
    head = {
        "schemaVersion": 1,
        "cluster": "shop",
        "device": "pi-1",
        "nonce": json.loads(question)["nonce"],
        "revision": 7,
        "trustVersion": 1,
        "time": "2026-11-24T12:00:00Z",
    }
    return seal(json.dumps(head | other).encode(), kind, [signer])


def test_an_answer_says_what_the_newest_is(heads: Heads) -> None:
    head = heads.heard(answer(heads.ask()))
    assert head is not None
    assert heads.describe() == [{"version": 1, "head": {"revision": 7, "time": "2026-11-24T12:00:00Z"}}]


@pytest.mark.parametrize(("newer", "told"), [({"revision": 8}, "revision 8"), ({"trustVersion": 2}, "trust bundle 2")])
def test_what_a_broker_holds_back_is_told(heads: Heads, newer: dict[str, Any], told: str) -> None:
    heads.heard(answer(heads.ask(), **newer))
    assert heads.describe()[0]["problem"].startswith(f"{told} exists and has not come")


def test_an_answer_kept_from_an_earlier_connection_is_none(heads: Heads) -> None:
    old = answer(heads.ask())
    assert heads.heard(old)
    heads.ask()
    assert heads.heard(old) is None


def test_an_answer_counts_once(heads: Heads) -> None:
    first = answer(heads.ask())
    assert heads.heard(first)
    assert heads.heard(first) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"cluster": "other"},
        {"device": "pi-2"},
        {"nonce": "0" * 32},
        {"revision": -1},
        {"time": "yesterday"},
        {"time": "2026-11-24T12:00:00"},
        {"signer": MALLORY},
        {"signer": ALICE},
        {"kind": DESIRED_STATE_TYPE},
    ],
)
def test_a_wrong_answer_is_not_believed(heads: Heads, wrong: dict[str, Any]) -> None:
    question = heads.ask()
    assert heads.heard(answer(question, **wrong)) is None
    assert heads.describe() == [{"version": 1}]
    assert heads.heard(answer(question)) is not None


def test_the_key_of_heads_signs_nothing_else() -> None:
    assert TRUSTED.key_ids(Role.HEAD) == {TICKER.key_id}
    assert TICKER.key_id not in TRUSTED.key_ids(Role.DESIRED_STATE)


class Doubtful:
    def __init__(self, *, good: bool) -> None:
        self.good = good
        self.told = "1970-01-01T00:00:10Z"

    def now(self) -> str:
        return self.told

    def monotonic(self) -> float:
        return 10.0

    def is_synchronized(self) -> bool:
        return self.good

    def raise_to(self, moment: str) -> None:
        self.told = moment


@pytest.mark.parametrize(("good", "floor"), [(False, b"2026-11-24T12:00:00Z"), (True, None)])
def test_a_clock_in_doubt_goes_on_from_the_head_s_time(good: bool, floor: bytes | None) -> None:  # noqa: FBT001
    clock, change = Doubtful(good=good), Change()
    ClockFloor(clock, clock.raise_to).learned("2026-11-24T12:00:00Z", change)
    assert change.meta.get(CLOCK_FLOOR) == floor
