"""Signed documents on the wire: DSSE v1 envelopes in JSON, signed with Ed25519.

The signature covers the exact payload bytes *and* their type, so nothing is canonicalized and a document of one kind
can never be taken for another. Format: https://github.com/secure-systems-lab/dsse (protocol.md, envelope.md).

Reading is bounded and strict, because anybody who can reach the broker can send bytes here: size first, then JSON,
then exactly the members DSSE has, each of its type, standard base64 in its one canonical form.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edge.errors import InvalidInputError, TrustError
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES

MAXIMUM_SIGNATURES: Final = 8
"""More signatures than this are refused before one is checked: each costs time, and no threshold needs them."""
MAXIMUM_SEALED_BYTES: Final = MAXIMUM_DOCUMENT_BYTES - 1024
"""An envelope must fit into one MQTT packet of `MAXIMUM_DOCUMENT_BYTES` with its topic and properties: a broker drops
a larger packet without telling anybody."""
SIGNATURE_BYTES: Final = 64
PUBLIC_KEY_BYTES: Final = 32

_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+/-]{1,128}")


class Signer(Protocol):
    """Somebody who holds a private Ed25519 key: a file, an agent, a hardware token, another program."""

    @property
    def key_id(self) -> str:
        """The `key_id_of` the public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64 byte Ed25519 signature of `message`."""
        ...


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature of an envelope; says nothing about who is trusted."""

    key_id: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed envelope. **Nothing in it is verified**: only `TrustedSet.verify` gives bytes to act on."""

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures cover."""
        return pre_authentication_encoding(self.payload_type, self.payload)


def key_id_of(public_key: bytes) -> str:
    """Name a raw Ed25519 public key: its SHA-256 in hexadecimal, so that one key has one name."""
    return hashlib.sha256(public_key).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's PAE: both parts with their lengths, so that no byte can move from one into the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, signers: Sequence[Signer]) -> bytes:
    """Sign `payload` by every signer and return the envelope.

    Raises:
        InvalidInputError: It would be too large for one packet, or there are too few or too many signers.
    """
    if not 1 <= len(signers) <= MAXIMUM_SIGNATURES:
        raise InvalidInputError(f"an envelope has 1 to {MAXIMUM_SIGNATURES} signatures, not {len(signers)}")
    message = pre_authentication_encoding(payload_type, payload)
    document = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [_signature_to_wire(signer, message) for signer in signers],
    }
    data = json.dumps(document, separators=(",", ":")).encode()
    if len(data) > MAXIMUM_SEALED_BYTES:
        raise InvalidInputError(
            f"the signed document has {len(data)} bytes, more than {MAXIMUM_SEALED_BYTES}, which fit into one message",
            hint="Give the device fewer tasks, or shorten their task definitions.",
        )
    return data


def open_envelope(data: bytes) -> Envelope:
    """Take an envelope apart without believing it.

    Raises:
        TrustError: It is malformed; the message says where.
    """
    if len(data) > MAXIMUM_DOCUMENT_BYTES:
        raise malformed(f"it has {len(data)} bytes, more than {MAXIMUM_DOCUMENT_BYTES}")
    document = _members(parse_json(data), ("payload", "payloadType", "signatures"), "the envelope")
    payload_type = document["payloadType"]
    if not isinstance(payload_type, str) or not _TYPE.fullmatch(payload_type):
        raise malformed("payloadType is not a media type")
    signatures = document["signatures"]
    if not isinstance(signatures, list) or not 1 <= len(signatures) <= MAXIMUM_SIGNATURES:
        raise malformed(f"signatures is not a list of 1 to {MAXIMUM_SIGNATURES}")
    return Envelope(
        payload=decode_base64(document["payload"], "payload"),
        payload_type=payload_type,
        signatures=tuple(_signature_from_wire(found, index) for index, found in enumerate(signatures)),
    )


def parse_json(data: bytes) -> Any:
    """Read JSON from outside; the caller bounded its size.

    Raises:
        TrustError: It is no JSON in UTF-8, is nested too deeply, or an object names a member twice.
    """
    try:
        return json.loads(data.decode(), object_pairs_hook=_unique_members)
    except (ValueError, RecursionError) as error:
        raise malformed(f"it is not JSON ({error})") from error


def decode_base64(value: object, where: str) -> bytes:
    """Decode standard base64 in its canonical form: one text for one value, so no byte of a document is idle.

    Raises:
        TrustError: It is something else.
    """
    if not isinstance(value, str):
        raise malformed(f"{where} is not a string")
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed(f"{where} is not base64 ({error})") from error
    if base64.b64encode(decoded).decode() != value:
        raise malformed(f"{where} is not canonical base64")
    return decoded


def malformed(why: str) -> TrustError:
    """Make the error for bytes that are no envelope, or no trust bundle."""
    return TrustError(f"malformed: {why}")


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of one name")
    return members


def _members(value: object, names: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise malformed(f"{where} is not an object of exactly {', '.join(names)}")
    return value


def _signature_to_wire(signer: Signer, message: bytes) -> dict[str, str]:
    return {"keyid": signer.key_id, "sig": base64.b64encode(signer.sign(message)).decode()}


def _signature_from_wire(value: object, index: int) -> Signature:
    where = f"signatures[{index}]"
    members = _members(value, ("keyid", "sig"), where)
    key_id = members["keyid"]
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise malformed(f"{where}.keyid is not 64 hexadecimal digits")
    signature = decode_base64(members["sig"], f"{where}.sig")
    if len(signature) != SIGNATURE_BYTES:
        raise malformed(f"{where}.sig has {len(signature)} bytes instead of {SIGNATURE_BYTES}")
    return Signature(key_id, signature)
