"""A device's key for secrets: believed because the device's certificate signed it, whoever brought it.

The broker carries a `birth` and signs nothing. So the key in it counts only with a signature by a certificate of this
fleet's CA, for that device, that is not revoked.
"""

import base64
from collections.abc import Mapping
from typing import Any, Final

from edge.errors import TrustError
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord
from edge.fleet.folder import Fleet
from edge.model.sealing import PUBLIC_KEY_BYTES
from edge.model.secrets import key_statement

_MAXIMUM_TEXT: Final = 16 * 1024


def learn_key(fleet: Fleet, device: DeviceRecord, birth: Mapping[str, Any]) -> bool:
    """Take over the key for secrets that a device's `birth` tells; returns whether it is a new one.

    Raises:
        TrustError: The key is not the device's by its certificate; the one known before stays.
    """
    told = birth.get("secretsKey")
    if not isinstance(told, Mapping):
        return False
    parts = [told.get(name) for name in ("publicKey", "signature", "certificate")]
    texts = [part for part in parts if isinstance(part, str) and len(part) <= _MAXIMUM_TEXT]
    if len(texts) != len(parts):
        raise TrustError(f"what {device.device} says of its key for secrets cannot be read")
    try:
        public, signature = (base64.b64decode(text, validate=True) for text in texts[:2])
    except ValueError as error:
        raise TrustError(f"what {device.device} says of its key for secrets cannot be read") from error
    if public == device.secrets_key:
        return False
    if len(public) != PUBLIC_KEY_BYTES:
        raise TrustError(f"{device.device} tells a key for secrets that is none")
    _prove(fleet, device, public, signature, texts[2].encode())
    with fleet.database.transaction():
        fleet.database.change(
            "UPDATE devices SET secrets_key = ? WHERE cluster = ? AND device = ?",
            (public, device.cluster, device.device),
        )
        # What was sealed to the former key is lost on the device.
        fleet.database.change(
            "UPDATE device_secrets SET version = 0 WHERE cluster = ? AND device = ?", (device.cluster, device.device)
        )
    return True


def _prove(fleet: Fleet, device: DeviceRecord, public: bytes, signature: bytes, certificate: bytes) -> None:
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    try:
        found = x509.load_pem_x509_certificate(certificate)
        found.verify_directly_issued_by(x509.load_pem_x509_certificate(fleet.folder.ca_certificate.read_bytes()))
        names = {str(one.value) for one in found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)}
        clusters = {str(one.value) for one in found.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)}
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise TrustError(f"the certificate of {device.device} is not for an EC key")
        key.verify(signature, key_statement(device.cluster, device.device, public), ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TrustError(
            f"the key for secrets of {device.device} is not signed by a certificate of this fleet"
        ) from error
    if names != {device.device} or clusters != {device.cluster}:
        raise TrustError(f"the key for secrets of {device.device} is signed by {', '.join(sorted(names))}")
    if _is_revoked(fleet.database, f"{found.serial_number:x}"):
        raise TrustError(f"the key for secrets of {device.device} is signed by a certificate that was revoked")


def _is_revoked(database: Database, serial: str) -> bool:
    row = database.row("SELECT revoked_at FROM certificates WHERE serial = ?", (serial,))
    return row is None or bool(row["revoked_at"])
