import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.model.envelope
import edge.model.trust
from edge.errors import SupersededError, TrustError
from edge.model.documents import COMMAND_TYPE, DESIRED_STATE_TYPE, MAXIMUM_DOCUMENT_BYTES, TRUST_TYPE
from edge.model.envelope import MAXIMUM_SIGNATURES, key_id_of, pre_authentication_encoding, seal
from edge.model.trust import BundleRole, Role, TrustedSet, make_bundle
from tests.model.signers import MemorySigner, sealed_bundle, trust_bundle

ALICE, BOB, MALLORY = MemorySigner(), MemorySigner(), MemorySigner()
PAYLOAD = b'{"schemaVersion":1,"revision":7,"tasks":[]}'
TRUSTED = TrustedSet.from_bundle(sealed_bundle([ALICE]))
L = 2**252 + 27742317777372353535851937790883648493
"""The order of Ed25519's group: S and S + L are the same point equation, and RFC 8032 forbids the second."""


def two_of_two() -> TrustedSet:
    bundle = trust_bundle([ALICE, BOB])
    rule = BundleRole(key_ids=[ALICE.key_id, BOB.key_id], threshold=2)
    roles = {**bundle.roles, Role.DESIRED_STATE: rule}
    return TrustedSet.from_bundle(make_bundle(bundle.model_copy(update={"roles": roles}), [ALICE]))


def with_signatures(data: bytes, signatures: list[dict[str, str]]) -> bytes:
    return json.dumps(json.loads(data) | {"signatures": signatures}).encode()


def signatures_of(data: bytes) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(data)["signatures"]
    return found


def test_what_the_right_key_signed_is_believed() -> None:
    verified = TRUSTED.verify(seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE]), DESIRED_STATE_TYPE)
    assert (verified.payload, verified.key_ids) == (PAYLOAD, (ALICE.key_id,))


def test_another_key_is_unknown() -> None:
    with pytest.raises(TrustError, match=r"^unknown key: "):
        TRUSTED.verify(seal(PAYLOAD, DESIRED_STATE_TYPE, [MALLORY]), DESIRED_STATE_TYPE)


def test_a_command_is_not_taken_for_a_desired_state() -> None:
    with pytest.raises(TrustError, match=r"^wrong type: "):
        TRUSTED.verify(seal(PAYLOAD, COMMAND_TYPE, [ALICE]), DESIRED_STATE_TYPE)


def test_a_command_relabelled_as_a_desired_state_does_not_verify() -> None:
    relabelled = json.loads(seal(PAYLOAD, COMMAND_TYPE, [ALICE])) | {"payloadType": DESIRED_STATE_TYPE}
    with pytest.raises(TrustError, match=r"^bad signature: "):
        TRUSTED.verify(json.dumps(relabelled).encode(), DESIRED_STATE_TYPE)


def test_nobody_may_sign_a_type_that_has_no_role() -> None:
    with pytest.raises(TrustError, match=r"^wrong type: nobody"):
        TRUSTED.verify(seal(PAYLOAD, "text/plain", [ALICE]), "text/plain")


def test_a_key_of_another_role_is_unknown() -> None:
    trusted = TrustedSet.from_bundle(make_bundle(trust_bundle([ALICE], assignments=[BOB]), [ALICE]))
    with pytest.raises(TrustError, match=r"^unknown key: .* desired-state"):
        trusted.verify(seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE]), DESIRED_STATE_TYPE)
    assert trusted.verify(seal(PAYLOAD, COMMAND_TYPE, [BOB]), COMMAND_TYPE).key_ids == (BOB.key_id,)


def test_a_role_the_bundle_does_not_have_is_signed_by_nobody() -> None:
    bundle = trust_bundle([ALICE])
    roles = {Role.ROOT: bundle.roles[Role.ROOT]}
    trusted = TrustedSet.from_bundle(make_bundle(bundle.model_copy(update={"roles": roles}), [ALICE]))
    with pytest.raises(TrustError, match=r"^unknown key: .*nobody"):
        trusted.verify(seal(PAYLOAD, COMMAND_TYPE, [ALICE]), COMMAND_TYPE)


def test_no_change_of_a_single_byte_of_an_envelope_is_accepted() -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE])
    for position in range(len(valid)):
        for bit in range(8):
            changed = bytearray(valid)
            changed[position] ^= 1 << bit
            with pytest.raises(TrustError):
                TRUSTED.verify(bytes(changed), DESIRED_STATE_TYPE)


def test_no_shortened_or_lengthened_envelope_is_accepted() -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE])
    for changed in [valid[:length] for length in range(len(valid))] + [valid + b"x", valid + valid]:
        with pytest.raises(TrustError):
            TRUSTED.verify(changed, DESIRED_STATE_TYPE)


def test_a_signature_with_a_second_spelling_is_not_accepted() -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE])
    raw = base64.b64decode(signatures_of(valid)[0]["sig"])
    scalar = int.from_bytes(raw[32:], "little") + L
    other = base64.b64encode(raw[:32] + scalar.to_bytes(32, "little")).decode()
    with pytest.raises(TrustError, match="bad signature"):
        TRUSTED.verify(with_signatures(valid, [{"keyid": ALICE.key_id, "sig": other}]), DESIRED_STATE_TYPE)


def test_a_signature_is_not_valid_under_another_keys_name() -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [MALLORY])
    stolen = [{"keyid": ALICE.key_id, "sig": signatures_of(valid)[0]["sig"]}]
    with pytest.raises(TrustError, match="bad signature"):
        TRUSTED.verify(with_signatures(valid, stolen), DESIRED_STATE_TYPE)


def test_two_keys_reach_a_threshold_of_two() -> None:
    verified = two_of_two().verify(seal(PAYLOAD, DESIRED_STATE_TYPE, [BOB, ALICE]), DESIRED_STATE_TYPE)
    assert verified.key_ids == (BOB.key_id, ALICE.key_id)


def test_two_signatures_of_one_key_count_once() -> None:
    for signers in ([ALICE], [ALICE, ALICE], [ALICE] * 8):
        with pytest.raises(TrustError, match=r"^below threshold: 1 of 2"):
            two_of_two().verify(seal(PAYLOAD, DESIRED_STATE_TYPE, signers), DESIRED_STATE_TYPE)


def test_a_strangers_or_a_bad_signature_does_not_count_and_does_not_harm() -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [MALLORY, ALICE, BOB])
    assert two_of_two().verify(valid, DESIRED_STATE_TYPE).key_ids == (ALICE.key_id, BOB.key_id)
    mallory, alice, _ = signatures_of(valid)
    forged = with_signatures(valid, [alice, {"keyid": BOB.key_id, "sig": mallory["sig"]}])
    with pytest.raises(TrustError, match=r"^below threshold"):
        two_of_two().verify(forged, DESIRED_STATE_TYPE)


@dataclass
class Work:
    """How often the expensive things were done."""

    parsed: int = 0
    verified: int = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    done = Work()
    parse, verify = edge.model.envelope.parse_json, edge.model.trust._is_signed_by

    def parsing(data: bytes) -> Any:
        done.parsed += 1
        return parse(data)

    def verifying(public_key: bytes, signature: bytes, message: bytes) -> bool:
        done.verified += 1
        return verify(public_key, signature, message)

    monkeypatch.setattr(edge.model.envelope, "parse_json", parsing)
    monkeypatch.setattr(edge.model.trust, "_is_signed_by", verifying)
    return done


def test_a_hundred_thousand_signatures_cost_nothing(work: Work) -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE])
    (mine,) = signatures_of(valid)
    flood = with_signatures(valid, [mine] * 100_000)
    with pytest.raises(TrustError, match="bytes, more than"):
        TRUSTED.verify(flood, DESIRED_STATE_TYPE)
    assert (work.parsed, work.verified) == (0, 0)


def test_as_many_signatures_as_fit_are_counted_and_not_verified(work: Work) -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE])
    (mine,) = signatures_of(valid)
    flood = with_signatures(valid, [mine] * 1_400)
    assert 0.9 * MAXIMUM_DOCUMENT_BYTES < len(flood) <= MAXIMUM_DOCUMENT_BYTES
    with pytest.raises(TrustError, match="signatures is not a list of 1 to 8"):
        TRUSTED.verify(flood, DESIRED_STATE_TYPE)
    assert (work.parsed, work.verified) == (1, 0)


def test_no_envelope_costs_more_than_eight_verifications(work: Work) -> None:
    valid = seal(PAYLOAD, DESIRED_STATE_TYPE, [ALICE] * MAXIMUM_SIGNATURES)
    forged = [dict(one, sig=base64.b64encode(bytes(64)).decode()) for one in signatures_of(valid)]
    with pytest.raises(TrustError, match="bad signature"):
        TRUSTED.verify(with_signatures(valid, forged), DESIRED_STATE_TYPE)
    assert work.verified <= MAXIMUM_SIGNATURES
    before = work.verified
    # A stranger's cost none at all.
    with pytest.raises(TrustError, match="unknown key"):
        TRUSTED.verify(seal(PAYLOAD, DESIRED_STATE_TYPE, [MALLORY] * MAXIMUM_SIGNATURES), DESIRED_STATE_TYPE)
    assert work.verified == before


def test_a_bundle_signed_by_a_stranger_is_not_believed() -> None:
    stranger = seal(trust_bundle([ALICE]).model_dump_json(by_alias=True).encode(), TRUST_TYPE, [MALLORY])
    with pytest.raises(TrustError, match="unknown key"):
        TrustedSet.from_bundle(stranger)


def test_a_newer_bundle_signed_by_the_old_and_the_new_root_takes_over() -> None:
    newer = TRUSTED.replace(make_bundle(trust_bundle([BOB], version=2), [ALICE, BOB]))
    assert newer.version == 2
    assert newer.verify(seal(PAYLOAD, COMMAND_TYPE, [BOB]), COMMAND_TYPE).key_ids == (BOB.key_id,)
    with pytest.raises(TrustError, match="unknown key"):
        newer.verify(seal(PAYLOAD, COMMAND_TYPE, [ALICE]), COMMAND_TYPE)


def test_a_newer_bundle_without_the_old_root_is_refused() -> None:
    with pytest.raises(TrustError, match="unknown key"):
        TRUSTED.replace(make_bundle(trust_bundle([MALLORY], version=2), [MALLORY]))


def test_a_newer_bundle_without_the_new_root_is_refused() -> None:
    payload = trust_bundle([BOB], version=2).model_dump_json(by_alias=True).encode()
    with pytest.raises(TrustError, match="unknown key"):
        TRUSTED.replace(seal(payload, TRUST_TYPE, [ALICE]))


def test_the_theft_of_one_root_key_of_two_changes_nothing() -> None:
    trusted = TrustedSet.from_bundle(make_bundle(trust_bundle([ALICE, BOB], threshold=2), [ALICE, BOB]))
    takeover = make_bundle(trust_bundle([ALICE, MALLORY], threshold=2, version=2), [ALICE, MALLORY])
    with pytest.raises(TrustError, match=r"^below threshold: 1 of 2"):
        trusted.replace(takeover)


@pytest.mark.parametrize("version", [1, 4, 5])
def test_an_older_or_equal_bundle_is_superseded(version: int) -> None:
    trusted = TrustedSet.from_bundle(sealed_bundle([ALICE], version=5))
    with pytest.raises(SupersededError, match="not newer than 5"):
        trusted.replace(sealed_bundle([ALICE], version=version))


def test_the_bundle_is_kept_exactly_as_it_came() -> None:
    data = sealed_bundle([ALICE])
    assert TrustedSet.from_bundle(data).bundle == data


def signed_bundle(**changes: Any) -> bytes:
    document = json.loads(trust_bundle([ALICE]).model_dump_json(by_alias=True)) | changes
    return seal(json.dumps(document).encode(), TRUST_TYPE, [ALICE])


ROOT = {"keyIds": [ALICE.key_id], "threshold": 1}
PUBLIC = base64.b64encode(ALICE.public).decode()
KEY = {"keyType": "ed25519", "public": PUBLIC}


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"version": 2**53},
        {"schemaVersion": 2},
        {"clusters": []},
        {"clusters": ["a/b"]},
        {"surprise": 1},
        {"keys": {}},
        {"keys": {key_id_of(BOB.public): KEY, ALICE.key_id: KEY}},
        {"keys": {ALICE.key_id: {"keyType": "rsa", "public": PUBLIC}}},
        {"keys": {ALICE.key_id: {"keyType": "ed25519", "public": "AAAA"}}},
        {"roles": {}},
        {"roles": {"command": ROOT}},
        {"roles": {"root": ROOT | {"threshold": 0}}},
        {"roles": {"root": ROOT | {"threshold": 2}}},
        {"roles": {"root": {"keyIds": [ALICE.key_id, ALICE.key_id], "threshold": 2}}},
        {"roles": {"root": {"keyIds": [BOB.key_id], "threshold": 1}}},
        {"roles": {"root": {"keyIds": [], "threshold": 1}}},
        {"roles": {"root": ROOT, "x" * 33: ROOT}},
        {"roles": {"root": ROOT} | {f"r-{chr(97 + index)}": ROOT for index in range(16)}},
    ],
)
def test_an_inconsistent_bundle_is_malformed_even_when_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(TrustError, match=r"^malformed: "):
        TrustedSet.from_bundle(signed_bundle(**changes))


def test_a_role_of_a_newer_fleet_does_not_make_the_bundle_unreadable() -> None:
    trusted = TrustedSet.from_bundle(signed_bundle(roles={"root": ROOT, "image-signature": ROOT}))
    assert trusted.version == 1


def test_a_bundle_is_bound_to_its_type() -> None:
    payload = trust_bundle([ALICE]).model_dump_json(by_alias=True).encode()
    with pytest.raises(TrustError, match=r"^wrong type"):
        TrustedSet.from_bundle(seal(payload, COMMAND_TYPE, [ALICE]))


def test_the_signature_covers_the_type_and_both_lengths() -> None:
    signature = ALICE.sign(pre_authentication_encoding(COMMAND_TYPE, PAYLOAD))
    valid = seal(PAYLOAD, COMMAND_TYPE, [ALICE])
    assert signatures_of(valid)[0]["sig"] == base64.b64encode(signature).decode()


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    for attempt in (lambda: TRUSTED.verify(data, COMMAND_TYPE), lambda: TrustedSet.from_bundle(data)):
        with pytest.raises(TrustError):
            attempt()


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_signed_payload_that_is_no_bundle_is_refused_in_order(payload: Any) -> None:
    with pytest.raises(TrustError, match=r"^malformed: "):
        TrustedSet.from_bundle(seal(json.dumps(payload).encode(), TRUST_TYPE, [ALICE]))
