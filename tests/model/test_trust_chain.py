import json

import pytest

from edge.errors import TrustError
from edge.model.trust import TrustedSet
from edge.model.trust_chain import MAXIMUM_BUNDLES, follow_chain, write_chain
from tests.model.signers import MemorySigner, sealed_bundle

ALICE, BOB, CAROL, MALLORY = (MemorySigner() for _ in range(4))
FIRST = sealed_bundle([ALICE])
SECOND = sealed_bundle([BOB], [ALICE, BOB], version=2)
THIRD = sealed_bundle([CAROL], [BOB, CAROL], version=3)
TRUSTED = TrustedSet.from_bundle(FIRST)


def test_a_device_that_was_away_follows_every_change() -> None:
    assert follow_chain(TRUSTED, write_chain([FIRST, SECOND, THIRD])).version == 3


def test_a_bundle_left_out_leads_nowhere() -> None:
    with pytest.raises(TrustError, match=r"trust bundle 3 .* unknown key"):
        follow_chain(TRUSTED, write_chain([FIRST, THIRD]))


def test_an_older_bundle_is_passed_over() -> None:
    third = follow_chain(TRUSTED, write_chain([SECOND, THIRD]))
    assert follow_chain(third, write_chain([FIRST, SECOND])) is third


def test_a_stolen_old_key_makes_no_new_bundle() -> None:
    stolen = sealed_bundle([MALLORY, ALICE], [MALLORY, ALICE], version=4)
    second = follow_chain(TRUSTED, write_chain([SECOND]))
    with pytest.raises(TrustError, match="trust bundle 4"):
        follow_chain(second, write_chain([FIRST, SECOND, stolen]))


def test_what_comes_after_a_wrong_bundle_does_not_count() -> None:
    wrong = sealed_bundle([MALLORY], version=2)
    with pytest.raises(TrustError):
        follow_chain(TRUSTED, write_chain([wrong, SECOND]))


@pytest.mark.parametrize(
    "chain",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2,"bundles":[]}',
        b'{"schemaVersion":1,"bundles":[1]}',
        b'{"schemaVersion":1,"bundles":["{}"]}',
        b'{"schemaVersion":1,"bundles":{},"more":1}',
        json.dumps({"schemaVersion": 1, "bundles": [FIRST.decode()] * (MAXIMUM_BUNDLES + 1)}).encode(),
        b"[" * 200_000,
        bytes(300_000),
    ],
)
def test_what_is_no_chain_is_malformed(chain: bytes) -> None:
    with pytest.raises(TrustError, match="malformed"):
        follow_chain(TRUSTED, chain)


def test_of_too_many_bundles_the_newest_go() -> None:
    names = [b"bundle %d" % number for number in range(MAXIMUM_BUNDLES + 5)]
    assert json.loads(write_chain(names))["bundles"][0] == "bundle 5"
    assert json.loads(write_chain([bytes(200_000).hex().encode(), b"small"]))["bundles"] == ["small"]
