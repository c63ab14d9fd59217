import base64
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InvalidInputError, TrustError
from edge.model.enrollment import (
    MAXIMUM_REQUEST_BYTES,
    ActivationId,
    EnrollmentAnswer,
    EnrollmentRequest,
    EnrollmentStatus,
    check_code,
    derive_keys,
    derive_password,
    new_code,
    prove,
    read_answer,
    read_request,
)
from edge.model.topics import ActivationTopics, parse_device, parse_enrollment

ID = ActivationId("shop", "0123456789abcdef")
CODE = "abcdefghijklmnopqrstuvwxyz234567"
KEYS = derive_keys(ID, CODE)
NONCE = "ab" * 16
REQUEST = EnrollmentRequest(activation=str(ID), device="pi-1", nonce=NONCE, request="-----BEGIN")
ANSWER = EnrollmentAnswer(activation=str(ID), device="pi-1", nonce=NONCE, status=EnrollmentStatus.PENDING)


def test_an_id_is_written_and_read_and_has_a_branch_of_its_own() -> None:
    made = ActivationId.new("shop-1")
    assert ActivationId.parse(str(made)) == made
    assert made.topics.request == f"edge/v1/shop-1/_enroll/{made.number}/req"
    assert parse_enrollment(made.topics.request) == ActivationTopics("shop-1", made.number)
    assert parse_enrollment(made.topics.answer) is None
    # No device's branch can be taken for it, nor the other way round.
    assert parse_device(made.topics.request) is None


@pytest.mark.parametrize(
    "text",
    ["", "shop", "shop.0123", "shop.0123456789ABCDEF", "sh/op.0123456789abcdef", "+.0123456789abcdef", f"{ID}\n"],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        ActivationId.parse(text)


def test_a_code_is_random_and_may_have_white_space_around_it() -> None:
    assert len({new_code() for _ in range(100)}) == 100
    assert check_code(f" {CODE}\n") == CODE


@pytest.mark.parametrize("text", ["", CODE[:-1], CODE.upper(), CODE + "a", "0" * 32])
def test_what_is_no_code_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check_code(text)
    assert not text or text not in str(refusal.value)


def test_every_secret_is_another_and_depends_on_id_and_code() -> None:
    def secrets(activation: ActivationId, code: str) -> list[str]:
        keys = derive_keys(activation, code)
        return [keys.request.hex(), keys.answer.hex(), derive_password(activation, code)]

    other = ActivationId("shop", "f" * 16)
    found = secrets(ID, CODE) + secrets(other, CODE) + secrets(ID, CODE[::-1])
    assert len(set(found)) == 9
    assert secrets(ID, CODE) == secrets(ID, CODE)


def test_the_secrets_are_those_of_the_first_release() -> None:
    # Another derivation would lock out every code that was handed out: RFC 5869 with these info strings, no salt.
    assert KEYS.request.hex() == "c989a554c43b2ac9384a8c673984f8f486794f2815b21121cf4b25e9941c8a1b"
    assert derive_password(ID, CODE) == "c913f354f8ec875d227d7535dc41acac0a7bbc58af2b33b30bc9b3b917408493"


def test_nothing_that_is_shown_has_a_secret_in_it() -> None:
    assert KEYS.request.hex() not in repr(KEYS)
    assert repr(KEYS.request) not in repr(KEYS)


def test_what_was_proved_is_read() -> None:
    assert read_request(prove(REQUEST, KEYS.request), KEYS.request) == REQUEST
    assert read_answer(prove(ANSWER, KEYS.answer), KEYS.answer) == ANSWER


@pytest.mark.parametrize("key", [KEYS.answer, derive_keys(ID, CODE[::-1]).request, b"", bytes(32)])
def test_another_key_proves_nothing(key: bytes) -> None:
    with pytest.raises(TrustError, match="who knows the activation code"):
        read_request(prove(REQUEST, key), KEYS.request)


def test_a_request_that_is_sent_back_is_no_answer() -> None:
    with pytest.raises(TrustError):
        read_answer(prove(REQUEST, KEYS.request), KEYS.answer)


def test_no_change_of_a_single_bit_is_accepted() -> None:
    for valid, read, key in (
        (prove(REQUEST, KEYS.request), read_request, KEYS.request),
        (prove(ANSWER, KEYS.answer), read_answer, KEYS.answer),
    ):
        for position in range(len(valid)):
            for bit in range(8):
                changed = bytearray(valid)
                changed[position] ^= 1 << bit
                with pytest.raises(TrustError):
                    read(bytes(changed), key)


def test_what_is_too_large_is_not_parsed() -> None:
    with pytest.raises(TrustError, match="bytes, more than"):
        read_request(b"[" * (MAXIMUM_REQUEST_BYTES + 1), KEYS.request)


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    for read, key in ((read_request, KEYS.request), (read_answer, KEYS.answer)):
        with pytest.raises(TrustError):
            read(data, key)


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "activation", "device", "nonce", "request", "status", "identity"]),
        st.none() | st.integers() | st.text("a1-", max_size=40) | st.lists(st.integers(), max_size=2),
    )
)
def test_any_proved_payload_that_is_no_document_is_refused_in_order(document: dict[str, Any]) -> None:
    payload = json.dumps(document).encode()
    told = {
        "payload": base64.b64encode(payload).decode(),
        "mac": hmac.digest(KEYS.request, payload, "sha256").hex(),
    }
    with pytest.raises(TrustError):
        read_request(json.dumps(told).encode(), KEYS.request)
