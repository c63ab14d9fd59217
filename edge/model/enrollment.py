"""Enrolment by activation id and code: how device and fleet know each other, though the code never travels.

From the code both derive three secrets by HKDF-SHA256 (RFC 5869), each for one purpose: a key for the device's
requests, another for the fleet's answers, and the activation's password at the broker. Request and answer carry an
HMAC-SHA256 over the very bytes of their payload; as the keys differ, neither can be taken for the other. The answer
repeats the request's nonce, so that it needs no clock to be known as new.

A code has 160 random bits: nothing that travels, and nothing that the fleet keeps, lets anybody guess it.
"""

import base64
import hmac
import json
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from edge.errors import InvalidInputError, TrustError
from edge.model.document import Document
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES
from edge.model.envelope import decode_base64, malformed, parse_json
from edge.model.identifiers import NAME_PATTERN, ClusterName, DeviceId
from edge.model.topics import ActivationTopics

MAXIMUM_REQUEST_BYTES: Final = 32 * 1024
_ID: Final = re.compile(rf"({NAME_PATTERN[1:-1]})\.([0-9a-f]{{16}})")
_CODE: Final = re.compile(r"[a-z2-7]{32}")
_CODE_BYTES: Final = 20
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ActivationId:
    """What an activation is called: the cluster it leads to, a dot, 16 hexadecimal digits."""

    cluster: str
    number: str

    @classmethod
    def parse(cls, text: str) -> "ActivationId":
        """Read an id as `edge fleet activation create` printed it.

        Raises:
            InvalidInputError: It is none.
        """
        match = _ID.fullmatch(text)
        if match is None:
            raise InvalidInputError(
                f"{text!r} is not an activation id", hint="It is what `edge fleet activation create` printed."
            )
        return cls(match[1], match[2])

    @classmethod
    def new(cls, cluster: str) -> "ActivationId":
        """Make one that nobody has."""
        return cls(cluster, secrets.token_hex(8))

    def __str__(self) -> str:
        return f"{self.cluster}.{self.number}"

    @property
    def topics(self) -> ActivationTopics:
        """Its branch."""
        return ActivationTopics(self.cluster, self.number)

    @property
    def user(self) -> str:
        """Its user name at the broker, which is its client id too; no device can be called that."""
        return f"_enroll.{self}"


def new_code() -> str:
    """Make an activation code: 32 letters and digits of RFC 4648's base32, in lower case."""
    return base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode().lower()


def check_code(text: str) -> str:
    """Return a code without the white space around it.

    Raises:
        InvalidInputError: It is none; the message does not repeat it.
    """
    code = text.strip()
    if not _CODE.fullmatch(code):
        raise InvalidInputError(
            "this is not an activation code", hint="It has 32 characters, as `edge fleet activation create` printed it."
        )
    return code


@dataclass(frozen=True, slots=True)
class ActivationKeys:
    """What proves a request, and what proves an answer. With either the code cannot be found."""

    request: bytes = field(repr=False)
    answer: bytes = field(repr=False)


def derive_keys(activation: ActivationId, code: str) -> ActivationKeys:
    """Return both sides' keys."""
    return ActivationKeys(_derive(activation, code, "request"), _derive(activation, code, "answer"))


def derive_password(activation: ActivationId, code: str) -> str:
    """Return the activation's password at the broker, 64 hexadecimal digits. It proves nothing to device or fleet."""
    return _derive(activation, code, "mqtt password").hex()


def _derive(activation: ActivationId, code: str, purpose: str) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - heavy, used here only
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    info = f"edge/v1 enrolment {purpose} {activation}".encode()
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(code.encode())


Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class EnrollmentRequest(Document):
    """A device asks for its identity. `request` is PKCS #10 in PEM, `nonce` new for each run of the command."""

    schema_version: Literal[1] = 1
    activation: Annotated[str, Field(max_length=128)]
    device: DeviceId
    nonce: Nonce
    request: Annotated[str, Field(max_length=16 * 1024)]


class EnrollmentStatus(StrEnum):
    """What became of a request."""

    ENROLLED = "ENROLLED"
    PENDING = "PENDING"
    REFUSED = "REFUSED"


class DeviceIdentity(Document):
    """All that a device is given: what `edge device add --out` writes, but the key.

    Attributes:
        certificate, authority: PEM.
        trust: The newest trust bundle, sealed.
    """

    cluster: ClusterName
    device: DeviceId
    certificate: Annotated[str, Field(max_length=16 * 1024)]
    authority: Annotated[str, Field(max_length=64 * 1024)]
    trust: Annotated[str, Field(max_length=MAXIMUM_DOCUMENT_BYTES)]
    broker_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
    broker_port: Annotated[int, Field(ge=1, le=65535, strict=True)]


class EnrollmentAnswer(Document):
    """The fleet's answer.

    Attributes:
        nonce: The request's.
        enrollment: What the operator calls the request.
        identity: With ENROLLED, and only then.
        reason: For a person.
    """

    schema_version: Literal[1] = 1
    activation: Annotated[str, Field(max_length=128)]
    device: DeviceId
    nonce: Nonce
    status: EnrollmentStatus
    enrollment: Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")] = ""
    reason: Annotated[str, Field(max_length=512)] = ""
    identity: DeviceIdentity | None = None


_D = TypeVar("_D", EnrollmentRequest, EnrollmentAnswer)


class _Proved(Document):
    payload: str
    mac: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def prove(document: EnrollmentRequest | EnrollmentAnswer, key: bytes) -> bytes:
    """Write a document for the wire, with the proof that its author has the key."""
    payload = json.dumps(document.to_wire(), separators=(",", ":")).encode()
    told = {"payload": base64.b64encode(payload).decode(), "mac": hmac.digest(key, payload, "sha256").hex()}
    return json.dumps(told, separators=(",", ":")).encode()


def read_request(data: bytes, key: bytes) -> EnrollmentRequest:
    """Return a request that was made by who has the key.

    Raises:
        TrustError: It is none, or the key is another.
    """
    return _read(EnrollmentRequest, data, key, MAXIMUM_REQUEST_BYTES)


def read_answer(data: bytes, key: bytes) -> EnrollmentAnswer:
    """Return an answer that was made by who has the key.

    Raises:
        TrustError: It is none, or the key is another.
    """
    return _read(EnrollmentAnswer, data, key, 2 * MAXIMUM_DOCUMENT_BYTES)


def _read(kind: type[_D], data: bytes, key: bytes, limit: int) -> _D:
    if len(data) > limit:
        raise malformed(f"it has {len(data)} bytes, more than {limit}")
    try:
        proved = _Proved.model_validate(parse_json(data))
        payload = decode_base64(proved.payload, "payload")
        if not hmac.compare_digest(hmac.digest(key, payload, "sha256").hex(), proved.mac):
            raise TrustError("it was not made by who knows the activation code")
        return kind.model_validate(parse_json(payload))
    except (ValidationError, RecursionError) as error:
        raise malformed("it is not a document of enrolment") from error
