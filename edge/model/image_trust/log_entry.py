"""A transparency log's promise that it has a signature: Rekor's signed entry timestamp.

The entry counts only for the signature it is about: the same digest, the same signature, the same key or certificate.
Each of these was forgotten by somebody once (CVE-2022-23649, CVE-2022-36056, CVE-2026-22703), and then any entry of
the log would do. Formats: github.com/sigstore/cosign `pkg/cosign/bundle`, github.com/sigstore/rekor
`pkg/types/hashedrekord/v0.0.1`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from edge.errors import TrustError
from edge.model.envelope import decode_base64, parse_json
from edge.model.image_trust.evidence import FoundSignature
from edge.model.image_trust.keys import has_signed, read_key, spki, usable

if TYPE_CHECKING:
    from edge.model.image_trust.keys import PublicKey

_LARGEST: Final = 253_402_300_800
"""Seconds from 1970 to the end of the year 9999; no log has as many entries either."""


def logged_at(found: FoundSignature, log_keys: Sequence[bytes], signer: bytes) -> int:
    """Return when the log took the signature in, in seconds since 1970.

    Args:
        found: The signature.
        log_keys: The logs that count (PEM).
        signer: Who signed, as the log must name them: a certificate in DER, or a key as DER SubjectPublicKeyInfo.

    Raises:
        TrustError: There is no entry, no log that counts promised it, or it is about something else.
    """
    if not found.log_entry:
        raise TrustError("it has no transparency log entry")
    entry = _members(parse_json(found.log_entry), ("SignedEntryTimestamp", "Payload"), "the log entry")
    promise = decode_base64(entry["SignedEntryTimestamp"], "SignedEntryTimestamp")
    payload = _members(entry["Payload"], ("body", "integratedTime", "logIndex", "logID"), "the log entry's payload")
    times = [payload["integratedTime"], payload["logIndex"]]
    if any(not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < _LARGEST for one in times):
        raise TrustError("the log entry's numbers are none")
    body = decode_base64(payload["body"], "the log entry's body")
    # RFC 8785: with these members and plain numbers, sorted names without spaces are canonical.
    signed = json.dumps(payload, sort_keys=True, separators=(",", ":")).encode()
    if not any(_promised(read_key(pem), payload["logID"], promise, signed) for pem in log_keys):
        raise TrustError("no transparency log that counts here has promised its entry")
    _check_body(body, found, signer)
    return int(payload["integratedTime"])


def _promised(key: "PublicKey", log_id: object, promise: bytes, signed: bytes) -> bool:
    return log_id == hashlib.sha256(spki(key)).hexdigest() and has_signed(key, promise, signed)


def _check_body(body: bytes, found: FoundSignature, signer: bytes) -> None:
    document: Any = parse_json(body)
    try:
        kind = document["kind"], document["apiVersion"]
        spec = document["spec"]
        hashed = spec["data"]["hash"]
        content, key = spec["signature"]["content"], spec["signature"]["publicKey"]["content"]
        about = hashed["algorithm"], hashed["value"]
    except (LookupError, TypeError) as error:
        raise TrustError("the log entry is of no kind that is known here") from error
    if kind != ("hashedrekord", "0.0.1"):
        raise TrustError("the log entry is of no kind that is known here")
    if about != ("sha256", hashlib.sha256(found.payload).hexdigest()):
        raise TrustError("the log entry is about another payload")
    if decode_base64(content, "the log entry's signature") != found.signature:
        raise TrustError("the log entry is about another signature")
    if _der_of(decode_base64(key, "the log entry's key")) != signer:
        raise TrustError("the log entry is about another signer")


def _der_of(pem: bytes) -> bytes:
    """A certificate stays a certificate here: a bare key never stands for one (GHSA-fx35-mq7g-6g98)."""
    from cryptography import x509  # noqa: PLC0415 - heavy, and seldom needed
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key  # noqa: PLC0415

    try:
        if b"BEGIN CERTIFICATE" in pem:
            return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        key = load_pem_public_key(pem)
    except Exception as error:
        raise TrustError("the log entry names a key that cannot be read") from error
    return spki(usable(key))


def _members(value: object, names: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        raise TrustError(f"{what} is not an object of {', '.join(names)}")
    return value
