import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InvalidInputError, TrustError
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES
from edge.model.envelope import (
    MAXIMUM_SEALED_BYTES,
    MAXIMUM_SIGNATURES,
    open_envelope,
    pre_authentication_encoding,
    seal,
)
from tests.model.signers import MemorySigner

TYPE = "application/vnd.edge.command.v1+json"


def wire(**changes: Any) -> bytes:
    document = json.loads(seal(b"{}", TYPE, [MemorySigner()])) | changes
    return json.dumps(document).encode()


def refused(data: bytes) -> str:
    with pytest.raises(TrustError, match=r"^malformed: ") as error:
        open_envelope(data)
    return str(error.value)


def test_the_encoding_under_the_signature_is_the_one_of_the_specification() -> None:
    assert pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(max_size=200), st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_two_different_documents_never_have_the_same_bytes_under_the_signature(
    first: bytes, second: bytes, first_type: str, second_type: str
) -> None:
    same = pre_authentication_encoding(first_type, first) == pre_authentication_encoding(second_type, second)
    assert same == ((first, first_type) == (second, second_type))


@given(st.binary(max_size=500))
def test_what_was_sealed_is_what_is_opened(payload: bytes) -> None:
    signer = MemorySigner()
    opened = open_envelope(seal(payload, TYPE, [signer]))
    assert (opened.payload, opened.payload_type, opened.signatures[0].key_id) == (payload, TYPE, signer.key_id)


def test_a_document_too_large_for_one_message_is_not_sealed() -> None:
    with pytest.raises(InvalidInputError, match="fit into one message"):
        seal(bytes(MAXIMUM_SEALED_BYTES), TYPE, [MemorySigner()])


def test_an_envelope_without_signers_is_not_sealed() -> None:
    with pytest.raises(InvalidInputError, match="1 to 8 signatures"):
        seal(b"{}", TYPE, [])


def test_an_oversized_envelope_is_refused_before_it_is_parsed() -> None:
    assert "bytes" in refused(b"[" * (MAXIMUM_DOCUMENT_BYTES + 1))


def test_deep_nesting_is_refused() -> None:
    assert "not JSON" in refused(b"[" * MAXIMUM_DOCUMENT_BYTES)


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"{", b"null", b"[]", b"{}", b'"text"', b"1" * 5000, b"NaN", b'{"payload":1,"payload":2}']
)
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"payload": 1}, "payload is not a string"),
        ({"payload": "e30"}, "not base64"),
        ({"payload": "e31="}, "canonical"),
        ({"payload": "e3 0="}, "not base64"),
        ({"payload": "é30="}, "not base64"),
        ({"payloadType": None}, "media type"),
        ({"payloadType": "a b"}, "media type"),
        ({"payloadType": "x" * 129}, "media type"),
        ({"payloadType": "a\n"}, "media type"),
        ({"signatures": {}}, "signatures"),
        ({"signatures": []}, "signatures"),
        ({"signatures": [1]}, r"signatures[0]"),
        ({"signatures": [{"keyid": "a" * 64}]}, "keyid, sig"),
        ({"signatures": [{"keyid": "A" * 64, "sig": ""}]}, "hexadecimal"),
        ({"signatures": [{"keyid": "a" * 64 + "\n", "sig": ""}]}, "hexadecimal"),
        ({"signatures": [{"keyid": 5, "sig": ""}]}, "hexadecimal"),
        ({"signatures": [{"keyid": "a" * 64, "sig": base64.b64encode(bytes(63)).decode()}]}, "63 bytes"),
        ({"extra": 1}, "exactly"),
    ],
)
def test_a_member_that_is_wrong_is_named(changes: dict[str, Any], word: str) -> None:
    assert word in refused(wire(**changes))


def test_a_member_that_is_there_twice_is_refused() -> None:
    assert "two members of one name" in refused(wire()[:-1] + b', "payload": "e30="}')


def test_a_flood_of_signatures_is_refused() -> None:
    one = json.loads(wire())["signatures"][0]
    assert len(open_envelope(wire(signatures=[one] * MAXIMUM_SIGNATURES)).signatures) == MAXIMUM_SIGNATURES
    assert "1 to 8" in refused(wire(signatures=[one] * (MAXIMUM_SIGNATURES + 1)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=80) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    refused(data)


@given(st.fixed_dictionaries({}, optional={"payload": JSON, "payloadType": JSON, "signatures": JSON, "other": JSON}))
def test_any_document_of_the_shape_is_opened_or_refused_in_order(changes: dict[str, Any]) -> None:
    with suppress(TrustError):
        open_envelope(wire(**changes))
