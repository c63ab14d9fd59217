"""A process that signs a task's token with the key of the device's certificate, and ends.

On its standard input come the claims as JSON, in its arguments the file with the certificate and its key (PEM).
"""

import base64
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, StoreError
from edge.model.task_identity import TOKEN_TYPE
from edge.process_memory import keep_to_oneself


def sign(claims: Mapping[str, Any], identity: Path) -> str:
    """Return the token in JWS's compact form.

    Raises:
        StoreError: The certificate or its key cannot be used.
    """
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415

    try:
        pem = identity.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
        key = serialization.load_pem_private_key(pem[pem.rindex(b"-----BEGIN") :], None)
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"cannot use the device's certificate and key in {identity}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise StoreError(f"the key in {identity} is not for P-256")
    head = {"alg": "ES256", "typ": TOKEN_TYPE, "x5c": [base64.b64encode(certificate).decode()]}
    signed = b".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return b".".join((signed, _encoded(r.to_bytes(32) + s.to_bytes(32)))).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


if __name__ == "__main__":
    keep_to_oneself()
    try:
        sys.stdout.write(sign(json.load(sys.stdin), Path(sys.argv[1])))
    except EdgeError as error:
        sys.exit(str(error))
