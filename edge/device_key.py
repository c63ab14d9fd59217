"""A device's own key, made where it is used, and the request for its certificate."""

from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import RefusedError, StoreError
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
