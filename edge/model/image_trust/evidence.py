"""What was found of an image's signatures: bytes from a registry, kept with the image, believed by nobody.

Only `verify.prove` makes something of them. Everything is bounded: how many signatures, how large each is, and all
together, because whoever may push to the repository can add as many as they like (CVE-2023-46737).
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edge.errors import TrustError

MAXIMUM_SIGNATURES: Final = 64
MAXIMUM_SIGNATURE_BYTES: Final = 64 * 1024
"""Of one signature with its payload, certificates and log entry."""
MAXIMUM_SIGNATURES_BYTES: Final = 1024 * 1024
"""Of all of them."""
MAXIMUM_MANIFEST_BYTES: Final = 4 * 1024 * 1024
MAXIMUM_EVIDENCE_BYTES: Final = 2 * (2 * MAXIMUM_MANIFEST_BYTES + MAXIMUM_SIGNATURES_BYTES)
"""As it is written: base64 makes it a third larger."""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class FoundSignature:
    """One signature, as it was found.

    Attributes:
        payload: What was signed.
        signature: Over the payload.
        certificate: The signer's, PEM; empty for a signature by a key.
        chain: More certificates, PEM; empty for none.
        log_entry: cosign's `bundle` annotation, JSON; empty for none.
    """

    payload: bytes
    signature: bytes
    certificate: bytes = b""
    chain: bytes = b""
    log_entry: bytes = b""

    @property
    def size(self) -> int:
        """Of all of it."""
        return sum(map(len, (self.payload, self.signature, self.certificate, self.chain, self.log_entry)))


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found.

    Attributes:
        index: The document a tag or digest meant, when it lists images of several platforms; empty otherwise.
        manifest: Of the image of this device's platform.
        signatures: In the order they were found.
        left_out: How many more there were, or how many that were too large.
    """

    index: bytes
    manifest: bytes
    signatures: tuple[FoundSignature, ...]
    left_out: int = 0

    @property
    def digests(self) -> tuple[str, ...]:
        """Of the documents a reference by digest may have meant."""
        return tuple(f"sha256:{hashlib.sha256(one).hexdigest()}" for one in (self.manifest, self.index) if one)

    def to_bytes(self) -> bytes:
        """Return it as it is kept and handed over."""
        document = {
            "schemaVersion": _VERSION,
            "index": _text(self.index),
            "manifest": _text(self.manifest),
            "leftOut": self.left_out,
            "signatures": [
                {
                    "payload": _text(one.payload),
                    "signature": _text(one.signature),
                    "certificate": _text(one.certificate),
                    "chain": _text(one.chain),
                    "logEntry": _text(one.log_entry),
                }
                for one in self.signatures
            ],
        }
        return json.dumps(document).encode()


def read_evidence(data: bytes) -> Evidence:
    """Read what `to_bytes` wrote.

    Raises:
        TrustError: It is something else, or too large.
    """
    if len(data) > MAXIMUM_EVIDENCE_BYTES:
        raise TrustError(f"the image's signatures take {len(data)} bytes; {MAXIMUM_EVIDENCE_BYTES} are the most")
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TrustError("what is known of the image's signatures is not JSON") from error
    if not isinstance(document, dict) or document.get("schemaVersion") != _VERSION:
        raise TrustError("what is known of the image's signatures is of another version")
    listed, left_out = document.get("signatures"), document.get("leftOut")
    if not isinstance(listed, list) or len(listed) > MAXIMUM_SIGNATURES or not isinstance(left_out, int):
        raise TrustError(f"the image's signatures are not a list of up to {MAXIMUM_SIGNATURES}")
    found = tuple(map(_signature, listed))
    if any(one.size > MAXIMUM_SIGNATURE_BYTES for one in found):
        raise TrustError(f"a signature of the image has more than {MAXIMUM_SIGNATURE_BYTES} bytes")
    manifest, index = _bytes(document, "manifest"), _bytes(document, "index")
    if max(len(manifest), len(index)) > MAXIMUM_MANIFEST_BYTES:
        raise TrustError(f"the image's manifest has more than {MAXIMUM_MANIFEST_BYTES} bytes")
    return Evidence(index, manifest, found, left_out)


def _signature(found: object) -> FoundSignature:
    if not isinstance(found, dict):
        raise TrustError("a signature of the image is not an object")
    parts = (_bytes(found, name) for name in ("payload", "signature", "certificate", "chain", "logEntry"))
    return FoundSignature(*parts)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(document: Mapping[str, Any], name: str) -> bytes:
    value = document.get(name)
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError) as error:
        raise TrustError(f"{name} of the image's signatures is not base64") from error
