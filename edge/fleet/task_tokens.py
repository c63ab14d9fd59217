"""Verifying the token of a task: signed by a device of this fleet, and still good."""

import base64
import json
from datetime import datetime
from typing import Any, Final

from edge.errors import TrustError
from edge.fleet.folder import Fleet
from edge.model.task_identity import TOKEN_TYPE

_MAXIMUM_TOKEN: Final = 16 * 1024
_SIGNATURE_BYTES: Final = 64


def verify_token(fleet: Fleet, token: str, audience: str, moment: datetime) -> dict[str, Any]:
    """Return the claims of a token.

    Raises:
        TrustError: It is none, not signed by a device of this fleet whose certificate counts, not for this audience, or
            its time is over.
    """
    if len(token) > _MAXIMUM_TOKEN:
        raise TrustError(f"the token has {len(token)} bytes; {_MAXIMUM_TOKEN} are the most")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - head, claims, signature
        raise TrustError("this is no token")
    head, claims = _object(parts[0]), _object(parts[1])
    if head.get("alg") != "ES256" or head.get("typ") != TOKEN_TYPE:
        raise TrustError("this is no token of a task")
    device, cluster = _signer(fleet, head, f"{parts[0]}.{parts[1]}".encode(), _decoded(parts[2]))
    if (claims.get("device"), claims.get("cluster")) != (device, cluster):
        raise TrustError(f"the token is of {claims.get('device')}, and {device} signed it")
    if claims.get("aud") != audience:
        raise TrustError(f"the token is for {claims.get('aud')!r}, not for {audience!r}")
    begins, ends, now = claims.get("nbf"), claims.get("exp"), moment.timestamp()
    if not isinstance(begins, int) or not isinstance(ends, int) or not begins <= now < ends:
        raise TrustError("the token is not good at this time")
    return claims


def _signer(fleet: Fleet, head: dict[str, Any], signed: bytes, signature: bytes) -> tuple[str, str]:
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature  # noqa: PLC0415

    chain = head.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise TrustError("the token names no certificate")
    try:
        found = x509.load_der_x509_certificate(base64.b64decode(chain[0], validate=True))
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(fleet.folder.ca_certificate.read_bytes()))
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != _SIGNATURE_BYTES:
            raise TrustError("the token's signature is none of ES256")
        r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
        (device,) = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        (cluster,) = found.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TrustError("the token is not signed by a device of this fleet") from error
    serial = f"{found.serial_number:x}"
    row = fleet.database.row("SELECT revoked_at FROM certificates WHERE serial = ?", (serial,))
    if row is None or row["revoked_at"]:
        raise TrustError("the token is signed by a certificate that was revoked, or that is no device's")
    return str(device.value), str(cluster.value)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(_decoded(text))
    except (ValueError, RecursionError) as error:
        raise TrustError("this is no token") from error
    if not isinstance(found, dict):
        raise TrustError("this is no token")
    return found


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError as error:
        raise TrustError("this is no token") from error
