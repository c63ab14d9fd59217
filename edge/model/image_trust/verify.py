"""Proof that an image is signed by whom a rule demands.

cosign's simple signing: a small JSON payload names the digest of a manifest and a repository, and is what was signed
(github.com/sigstore/cosign `specs/SIGNATURE_SPEC.md`). What it names is held against the bytes at hand: the manifest,
or the index that lists it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge.errors import InvalidInputError, TrustError
from edge.model.envelope import parse_json
from edge.model.image_trust.certificate import certified_key, check_identity
from edge.model.image_trust.evidence import Evidence, FoundSignature
from edge.model.image_trust.keys import has_signed, read_key, spki
from edge.model.image_trust.log_entry import logged_at
from edge.model.image_trust.policy import ImageRule, repository_of

if TYPE_CHECKING:
    from edge.model.image_trust.keys import PublicKey

_TYPE: Final = "cosign container image signature"
_REASONS: Final = 3


@dataclass(frozen=True, slots=True)
class ProvenImage:
    """An image that a rule's signer has signed.

    Attributes:
        digest: `sha256:…` of its manifest, of this device's platform.
        image_id: Hexadecimal digest of its configuration.
        signer: Who, for a person: a key's fingerprint, or an identity.
    """

    digest: str
    image_id: str
    signer: str


@dataclass(frozen=True, slots=True)
class _Signers:
    keys: "tuple[PublicKey, ...]"
    rule: ImageRule


def prove(evidence: Evidence, rule: ImageRule, fleet_keys: Sequence[bytes], image: str) -> ProvenImage:
    """Return the image, if one of its signatures is what the rule demands.

    Args:
        evidence: What was found.
        rule: With `wants_signature`.
        fleet_keys: The trust bundle's keys for images (PEM); they count where the rule says so.
        image: The reference it was asked for by: its repository must be the signed one.

    Raises:
        TrustError: No signature will do; the message says why the first of them did not.
    """
    digest = _digest(evidence.manifest)
    image_id = _image_id(evidence.manifest)
    signed = {digest} | _listed_in(evidence.index, digest)
    _, at, asked = image.partition("@")
    if at and asked not in signed:
        raise TrustError(f"what was found is about another image than {asked[:80]}")
    try:
        keys = tuple(map(read_key, (*rule.keys, *(fleet_keys if rule.fleet_keys else ()))))
    except InvalidInputError as error:
        raise TrustError(str(error)) from error
    reasons: list[str] = []
    for found in evidence.signatures:
        try:
            signer = _check(found, _Signers(keys, rule), signed, repository_of(image))
        except TrustError as error:
            reasons.append(str(error))
        else:
            return ProvenImage(digest, image_id, signer)
    raise TrustError(_refusal(evidence, reasons))


def _check(found: FoundSignature, signers: _Signers, digests: frozenset[str] | set[str], repository: str) -> str:
    _check_payload(found.payload, digests, repository)
    if signers.rule.authorities:
        return _check_keyless(found, signers.rule)
    key = next((one for one in signers.keys if has_signed(one, found.signature, found.payload)), None)
    if key is None:
        raise TrustError("none of the keys that count here signed it")
    name = f"key {hashlib.sha256(spki(key)).hexdigest()[:12]}"
    if signers.rule.log_keys:
        logged_at(found, signers.rule.log_keys, spki(key))
    return name


def _check_keyless(found: FoundSignature, rule: ImageRule) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 - heavy, and seldom needed

    from edge.model.image_trust.certificate import read_certificates  # noqa: PLC0415

    if not found.certificate:
        raise TrustError("it is signed by a bare key, and a certificate is due")
    certificates = read_certificates(found.certificate)
    if not certificates:
        raise TrustError("its certificate cannot be read")
    at = logged_at(found, rule.log_keys, certificates[0].public_bytes(Encoding.DER))
    certificate, key = certified_key(found.certificate, found.chain, rule.authorities, at)
    check_identity(certificate, rule.identity, rule.issuer)
    if not has_signed(key, found.signature, found.payload):
        raise TrustError("the key of its certificate did not sign it")
    return rule.identity


def _check_payload(payload: bytes, digests: frozenset[str] | set[str], repository: str) -> None:
    document: Any = parse_json(payload)
    try:
        critical = document["critical"]
        kind, digest = critical["type"], critical["image"]["docker-manifest-digest"]
        name = critical["identity"]["docker-reference"]
    except (LookupError, TypeError) as error:
        raise TrustError("it signs something that is no image") from error
    if kind != _TYPE:
        raise TrustError("it signs something that is no image")
    if not isinstance(digest, str) or digest not in digests:
        raise TrustError(f"it signs another image ({str(digest)[:80]})")
    if not isinstance(name, str) or repository_of(name) != repository:
        raise TrustError(f"it signs an image of {str(name)[:200]}, not of {repository}")


def _image_id(manifest: bytes) -> str:
    document: Any = parse_json(manifest)
    try:
        digest = document["config"]["digest"]
    except (LookupError, TypeError) as error:
        raise TrustError("the manifest names no configuration") from error
    kind, _, value = digest.partition(":") if isinstance(digest, str) else ("", "", "")
    if kind != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):  # noqa: PLR2004
        raise TrustError("the manifest names its configuration by other than a sha256 digest")
    return str(value)


def _listed_in(index: bytes, digest: str) -> set[str]:
    """The index's own digest, if it lists the manifest: who signed the index signed what it lists."""
    if not index:
        return set()
    document: Any = parse_json(index)
    listed = document.get("manifests") if isinstance(document, dict) else None
    found = isinstance(listed, list) and any(isinstance(one, dict) and one.get("digest") == digest for one in listed)
    return {_digest(index)} if found else set()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _refusal(evidence: Evidence, reasons: list[str]) -> str:
    if not reasons and not evidence.left_out:
        return "it has no signature"
    told = "; ".join(dict.fromkeys(reasons[:_REASONS]))
    more = f" ({evidence.left_out} more, or too large, were not looked at)" if evidence.left_out else ""
    return f"{len(reasons)} signature{'s' * (len(reasons) != 1)}, none that counts: {told}{more}"
