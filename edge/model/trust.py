"""Whom a device believes: keys, roles and thresholds, replaced only upward and only by themselves.

Modelled on TUF's root metadata (https://theupdateframework.github.io/specification/latest/, §4.3 and §5.3): a trust
bundle lists keys and says how many of which must sign what; it is itself an envelope, signed by its own `root` role.
A newer bundle takes its place only when the old root's threshold *and* the new root's threshold signed it, so the loss
of one key of two can be repaired and the theft of one changes nothing.

Time plays no part: a device without a clock judges versions, never dates.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, ValidationError

from edge.errors import SupersededError, TrustError
from edge.model.document import Document
from edge.model.documents import COMMAND_TYPE, DESIRED_STATE_TYPE, HEAD_TYPE, RUNTIME_BUNDLE_TYPE, TRUST_TYPE
from edge.model.envelope import (
    PUBLIC_KEY_BYTES,
    Envelope,
    Signature,
    Signer,
    decode_base64,
    key_id_of,
    malformed,
    open_envelope,
    parse_json,
    seal,
)
from edge.model.identifiers import ClusterName
from edge.model.image_trust.keys import P256_BYTES, raw_key_pem

MAXIMUM_KEYS: Final = 32
MAXIMUM_ROLES: Final = 16
MAXIMUM_CLUSTERS: Final = 64

KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Role(StrEnum):
    """What a set of keys may sign. A bundle may name roles that this reader does not know; they verify nothing."""

    ROOT = "root"
    """Trust bundles."""
    DESIRED_STATE = "desired-state"
    COMMAND = "command"
    HEAD = "head"
    """What the newest revision is, and what time: a key that is always at hand, and can do nothing else."""
    IMAGE = "image"
    """Container images, where a device's rules say that the fleet's keys count; signs none of our documents."""
    FIRMWARE = "firmware"
    """What `edge` itself is on a device: bundles of its own program."""


DOCUMENT_ROLES: Final = tuple(role for role in Role if role is not Role.IMAGE)
"""What a key of the fleet may sign when nobody says otherwise."""


ROLE_OF_TYPE: Final[Mapping[str, Role]] = {
    TRUST_TYPE: Role.ROOT,
    HEAD_TYPE: Role.HEAD,
    DESIRED_STATE_TYPE: Role.DESIRED_STATE,
    COMMAND_TYPE: Role.COMMAND,
    RUNTIME_BUNDLE_TYPE: Role.FIRMWARE,
}
"""DSSE payloadType -> who must sign it. A type that is not here is signed by nobody."""


class _Strict(Document):
    """A newer fleet says more by a new role or a new `schemaVersion`: an unknown field here might narrow trust."""

    model_config = ConfigDict(extra="forbid")


class BundleKey(_Strict):
    """A public key; `public` is the raw key in base64: of `ecdsa-p256`, for images alone, the compressed point."""

    key_type: Literal["ed25519", "ecdsa-p256"] = "ed25519"
    public: Annotated[str, Field(max_length=64)]


class BundleRole(_Strict):
    """`threshold` different keys of `key_ids` must sign."""

    key_ids: Annotated[list[KeyId], Field(min_length=1, max_length=MAXIMUM_KEYS)]
    threshold: Annotated[int, Field(ge=1, le=MAXIMUM_KEYS, strict=True)]


class TrustBundle(_Strict):
    """The payload of a trust bundle.

    Attributes:
        version: Strictly increasing.
        clusters: Whose documents these keys may sign; a device of another cluster refuses the bundle.
        issued_at: RFC 3339; for people.
        keys: Key id (SHA-256 of the raw public key, hexadecimal) -> key.
        roles: Role name -> who signs for it. `root` must be there.
    """

    schema_version: Literal[1] = 1
    version: Annotated[int, Field(ge=1, lt=2**53, strict=True)]
    clusters: Annotated[list[ClusterName], Field(min_length=1, max_length=MAXIMUM_CLUSTERS)]
    issued_at: Annotated[str, Field(max_length=64)]
    keys: Annotated[dict[KeyId, BundleKey], Field(min_length=1, max_length=MAXIMUM_KEYS)]
    roles: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z-]{1,32}$")], BundleRole],
        Field(min_length=1, max_length=MAXIMUM_ROLES),
    ]


@dataclass(frozen=True, slots=True)
class Verified:
    """Bytes that were signed by who must sign them; `key_ids` in the order of the envelope, each once."""

    payload: bytes
    key_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustedSet:
    """The keys in force.

    Attributes:
        bundle: The envelope they came from, exactly as received; this is what is stored.
    """

    bundle: bytes
    version: int
    clusters: tuple[str, ...]
    _keys: Mapping[str, bytes]
    _roles: Mapping[str, BundleRole]

    @classmethod
    def from_bundle(cls, data: bytes) -> "TrustedSet":
        """Believe a bundle that came by a way already trusted: with the device's identity, or from its own store.

        Raises:
            TrustError: It is malformed, or not signed by its own root.
        """
        trusted, envelope = cls._read(data)
        trusted.signers(envelope, Role.ROOT)
        return trusted

    @classmethod
    def _read(cls, data: bytes) -> tuple["TrustedSet", Envelope]:
        envelope = open_envelope(data)
        _check_type(envelope, TRUST_TYPE)
        bundle = _parse_bundle(envelope.payload)
        keys = {key_id: _public_key(key_id, key) for key_id, key in bundle.keys.items()}
        return cls(data, bundle.version, tuple(bundle.clusters), keys, bundle.roles), envelope

    @staticmethod
    def version_of(data: bytes) -> int:
        """Return the version a bundle claims. Nothing is verified.

        Raises:
            TrustError: It is malformed.
        """
        return TrustedSet._read(data)[0].version

    def key_ids(self, role: Role) -> frozenset[str]:
        """Return whose signatures count for a role; nobody's for one that the bundle does not have."""
        rule = self._roles.get(role)
        return frozenset(rule.key_ids) if rule else frozenset()

    def threshold(self, role: Role) -> int:
        """Return how many of them must sign; 0 for a role that the bundle does not have."""
        rule = self._roles.get(role)
        return rule.threshold if rule else 0

    def image_keys(self) -> tuple[bytes, ...]:
        """Return the keys that may sign images, in PEM."""
        return tuple(raw_key_pem(self._keys[key_id]) for key_id in sorted(self.key_ids(Role.IMAGE)))

    def public_key(self, key_id: str) -> bytes:
        """Return a raw key of the bundle."""
        return self._keys[key_id]

    def verify(self, data: bytes, payload_type: str) -> Verified:
        """Return what `data` carries, if enough of the right keys signed it as that very type.

        Whether the document is meant for this device, and is new, is for its reader to judge.

        Raises:
            TrustError: `malformed`, `wrong type`, `unknown key`, `bad signature` or `below threshold`: the message
                begins with one of these words and says more.
        """
        envelope = open_envelope(data)
        _check_type(envelope, payload_type)
        role = ROLE_OF_TYPE.get(payload_type)
        if role is None:
            raise TrustError(f"wrong type: nobody may sign {payload_type}")
        return Verified(envelope.payload, self.signers(envelope, role))

    def replace(self, data: bytes) -> "TrustedSet":
        """Return the trusted set of a newer bundle.

        Raises:
            SupersededError: Its version is not higher than this one's.
            TrustError: It is malformed, or the threshold of this root or of its own did not sign it.
        """
        newer, envelope = self._read(data)
        self.signers(envelope, Role.ROOT)
        newer.signers(envelope, Role.ROOT)
        if newer.version <= self.version:
            raise SupersededError(f"trust bundle {newer.version} is not newer than {self.version}, which is in force")
        return newer

    def signers(self, envelope: Envelope, role: Role) -> tuple[str, ...]:
        """Return the key ids whose signatures count for `role`; each key counts once, however often it signed.

        Raises:
            TrustError: `unknown key`, `bad signature` or `below threshold`.
        """
        rule = self._roles.get(role)
        if rule is None:
            raise TrustError(f"unknown key: trust bundle {self.version} lets nobody sign as {role}")
        known = [signature for signature in envelope.signatures if signature.key_id in rule.key_ids]
        if not known:
            names = ", ".join(signature.key_id[:12] for signature in envelope.signatures)
            raise TrustError(f"unknown key: {names} may not sign as {role} by trust bundle {self.version}")
        valid = self._valid(envelope.signed_bytes, known)
        if not valid:
            raise TrustError(f"bad signature: {known[0].key_id[:12]} did not sign these bytes as {role}")
        if len(valid) < rule.threshold:
            raise TrustError(f"below threshold: {len(valid)} of {rule.threshold} keys signed as {role}")
        return valid

    def _valid(self, message: bytes, signatures: Sequence[Signature]) -> tuple[str, ...]:
        good = (found.key_id for found in signatures if _is_signed_by(self._keys[found.key_id], found.value, message))
        return tuple(dict.fromkeys(good))


def make_bundle(bundle: TrustBundle, signers: Sequence[Signer]) -> bytes:
    """Seal a trust bundle and prove that it can be read back.

    Raises:
        TrustError: It is inconsistent, or these signers are not enough for its own root.
    """
    data = seal(bundle.model_dump_json(by_alias=True).encode(), TRUST_TYPE, signers)
    TrustedSet.from_bundle(data)
    return data


def bundle_key(public_key: bytes) -> BundleKey:
    """Write a raw Ed25519 public key, or a compressed point on P-256, as bundles have it."""
    return BundleKey(
        key_type="ecdsa-p256" if len(public_key) == P256_BYTES else "ed25519",
        public=base64.b64encode(public_key).decode(),
    )


def _check_type(envelope: Envelope, wanted: str) -> None:
    if envelope.payload_type != wanted:
        raise TrustError(f"wrong type: {envelope.payload_type} instead of {wanted}")


def _parse_bundle(payload: bytes) -> TrustBundle:
    document: Any = parse_json(payload)
    try:
        bundle = TrustBundle.model_validate(document)
    except (ValidationError, RecursionError) as error:
        raise malformed(f"the trust bundle is not one ({_first_problem(error)})") from error
    _check_roles(bundle)
    return bundle


def _check_roles(bundle: TrustBundle) -> None:
    if Role.ROOT not in bundle.roles:
        raise malformed("the trust bundle has no root role")
    for name, role in bundle.roles.items():
        if not set(role.key_ids) <= set(bundle.keys):
            raise malformed(f"role {name} names a key that the trust bundle does not have")
        if role.threshold > len(set(role.key_ids)):
            raise malformed(f"role {name} wants {role.threshold} signatures of {len(set(role.key_ids))} keys")
        if name == Role.IMAGE and role.threshold != 1:
            raise malformed(f"role {name} wants {role.threshold} signatures; of an image one is looked for")
        if name != Role.IMAGE and any(bundle.keys[key_id].key_type != "ed25519" for key_id in role.key_ids):
            raise malformed(f"role {name} has a key that can sign only images: Ed25519 signs documents")


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _public_key(key_id: str, key: BundleKey) -> bytes:
    public = decode_base64(key.public, f"keys.{key_id[:12]}.public")
    size = PUBLIC_KEY_BYTES if key.key_type == "ed25519" else P256_BYTES
    if len(public) != size or key_id_of(public) != key_id or not _is_point(key, public):
        raise malformed(f"key {key_id[:12]} is not the key of that name")
    return public


def _is_point(key: BundleKey, public: bytes) -> bool:
    if key.key_type == "ed25519":
        return True
    try:
        raw_key_pem(public)
    except ValueError:
        return False
    return True


def _is_signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    # Imported where it is used: an agent that has nothing to verify yet does not carry OpenSSL's bindings.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True
