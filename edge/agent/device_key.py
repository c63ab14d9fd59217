"""A device's own key, made where it is used, and the request for its certificate.

Run as a program it tells when a certificate began and when it ends, so that an agent that only wants to know that does
not load a library for it.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import RefusedError, StoreError, TrustError
from edge.files import make_folder, store_error, write_atomically
from edge.model.identifiers import check_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import CertificateSigningRequest


def make_request(folder: Path, device: str) -> Path:
    """Write `device.key` (P-256, PKCS #8 PEM, mode 0600), unless it is there, and `device.csr` (PEM), which it returns.

    Raises:
        InvalidInputError: `device` is not a name.
        RefusedError: There is something else at `device.key`.
        StoreError: They cannot be written.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy, used here only

    check_name("device", device)
    try:
        make_folder(folder)
    except OSError as error:
        raise store_error(f"cannot make {folder}", error) from error
    request = folder / "device.csr"
    write_atomically(
        request, _request(_own_key(folder / "device.key"), device).public_bytes(serialization.Encoding.PEM), 0o644
    )
    return request


def check_issued(certificate: bytes, path: Path, device: str, authority: bytes) -> bytes:
    """Return the private key (PEM) at `path` that a certificate is for.

    Raises:
        TrustError: It is for another key or another device, or was not issued by that authority (PEM); or no key
            waits for one.
        StoreError: The key cannot be read.
    """
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    if not path.exists():
        raise TrustError("a certificate came that nobody asked for")
    key = _own_key(path)
    try:
        issued = x509.load_pem_x509_certificate(certificate)
        issued.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
        names = [str(name.value) for name in issued.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        mine = issued.public_key() == key.public_key()
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TrustError("the certificate was not issued by this fleet's authority") from error
    if names != [device] or not mine:
        raise TrustError(f"the certificate is for {', '.join(names)}, or for a key that is not ours")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def validity(certificate: bytes) -> tuple[datetime, datetime]:
    """Return when a certificate (PEM, anything around it) begins and when it ends.

    Raises:
        StoreError: It is none.
    """
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only

    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise StoreError("this is no certificate in PEM") from error
    return found.not_valid_before_utc, found.not_valid_after_utc


def _own_key(path: Path) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy, used here only
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    try:
        pem = path.read_bytes()
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, pem)
        return key
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    try:
        found = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise StoreError(f"{path} is no private key in PEM", hint="Put it aside, and a new one is made.") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise RefusedError(f"{path} is not a P-256 key", hint="Put it aside, and a new one is made.")
    return found


def _request(key: "EllipticCurvePrivateKey", device: str) -> "CertificateSigningRequest":
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    return x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())


if __name__ == "__main__":
    json.dump([one.isoformat() for one in validity(Path(sys.argv[1]).read_bytes())], sys.stdout)
