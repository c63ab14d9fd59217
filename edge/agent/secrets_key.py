"""The device's own X25519 key, to which its secrets are sealed, and its word that it is its own.

The key is made on the device and stays there. The word is a signature by the key of the device's certificate: the fleet
knows by its own CA whose it is (docs/adr/0020). Run as a program it gives that word as JSON, so that the agent need not
load what reads certificates.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

from edge.errors import EdgeError, StoreError
from edge.files import store_error, write_atomically
from edge.model.sealing import new_private_key, public_key_of
from edge.model.secrets import key_statement

_KEY_BYTES = 32


def own_key(path: Path) -> bytes:
    """Return the raw private key in a file (mode 0600), made where there is none.

    Raises:
        StoreError: It cannot be read or written, or is no key.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = new_private_key()
        write_atomically(path, key)
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    if len(key) != _KEY_BYTES:
        raise StoreError(
            f"{path} is no X25519 key", hint="Put it aside: a new one is made, and secrets are sealed anew to it."
        )
    return key


def state_key(cluster: str, device: str, key_file: Path, identity: Path) -> dict[str, Any]:
    """Return what a device's `birth` says of its key: `publicKey`, `signature`, `certificate`.

    Args:
        cluster: The device's.
        device: Its name.
        key_file: The X25519 key; made where there is none.
        identity: The device's certificate and its key, PEM, one after the other.

    Raises:
        StoreError: A file cannot be used.
    """
    from cryptography import x509  # noqa: PLC0415 - heavy, used here only
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    public = public_key_of(own_key(key_file))
    try:
        pem = identity.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(pem[pem.rindex(b"-----BEGIN", 0, pem.rindex(b"-----END")) :], None)
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"cannot use the device's certificate and key in {identity}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StoreError(f"the key in {identity} is no EC key")
    signature = key.sign(key_statement(cluster, device, public), ec.ECDSA(hashes.SHA256()))
    return {
        "publicKey": base64.b64encode(public).decode(),
        "signature": base64.b64encode(signature).decode(),
        "certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
    }


if __name__ == "__main__":
    try:
        json.dump(state_key(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])), sys.stdout)
    except EdgeError as error:
        sys.exit(str(error))
