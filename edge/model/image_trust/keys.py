"""Public keys that sign images: ECDSA on P-256 and P-384 and RSA with SHA-256, and Ed25519, as cosign makes them."""

from typing import TYPE_CHECKING, Final

from edge.errors import InvalidInputError, TrustError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

ED25519_BYTES: Final = 32
P256_BYTES: Final = 33
"""A point on P-256, compressed (SEC 1, 2.3.3)."""
_CURVES: Final = frozenset({"secp256r1", "secp384r1"})
_LEAST_RSA_BITS: Final = 2048


def read_key(pem: bytes) -> "PublicKey":
    """Read a public key in PEM.

    Raises:
        InvalidInputError: It is none, or of a kind that does not count here.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - heavy, and seldom needed
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        return usable(load_pem_public_key(pem))
    except (ValueError, TypeError, UnsupportedAlgorithm, TrustError) as error:
        raise InvalidInputError(f"this is not a public key that can sign images: {error}") from error


def usable(key: object) -> "PublicKey":
    """Return a key of a kind that counts.

    Raises:
        TrustError: It is of another kind, or too short.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return key
        case ed25519.Ed25519PublicKey():
            return key
        case rsa.RSAPublicKey() if key.key_size >= _LEAST_RSA_BITS:
            return key
        case _:
            raise TrustError("only P-256, P-384, Ed25519 and RSA keys of 2048 bits or more can sign images")


def raw_key_pem(public: bytes) -> bytes:
    """Return a key of the trust bundle (raw Ed25519, or a compressed point on P-256) in PEM."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    key = (
        ed25519.Ed25519PublicKey.from_public_bytes(public)
        if len(public) == ED25519_BYTES
        else ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    )
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def spki(key: "PublicKey") -> bytes:
    """Return a key as DER SubjectPublicKeyInfo: one text for one key."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def has_signed(key: "PublicKey", signature: bytes, message: bytes) -> bool:
    """Say whether a key signed a message."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding  # noqa: PLC0415

    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True
