"""A value that one device alone can open: X25519 with a key used once, HKDF-SHA256, ChaCha20-Poly1305.

The scheme is HPKE's base mode in spirit (RFC 9180), written with what `cryptography` has: 32 bytes of the key that was
used once, then the ciphertext with its tag. Key and nonce come from HKDF over the shared secret, with both public keys
as salt; so no nonce is ever used twice with a key. What the value is bound to goes in as associated data.
"""

from typing import Final

from edge.errors import TrustError

PUBLIC_KEY_BYTES: Final = 32
_INFO: Final = b"edge secret v1: X25519, HKDF-SHA256, ChaCha20-Poly1305"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16


def new_private_key() -> bytes:
    """Return a new X25519 private key, raw."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415 - where it is used

    return X25519PrivateKey.generate().private_bytes_raw()


def public_key_of(private_key: bytes) -> bytes:
    """Return the raw public key that belongs to a raw private one.

    Raises:
        TrustError: It is none.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415

    try:
        return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    except ValueError as error:
        raise TrustError("this is no X25519 key") from error


def seal_secret(public_key: bytes, value: bytes, bound_to: bytes) -> bytes:
    """Return `value` as only the holder of the private key can read it, and only as what it is bound to.

    Raises:
        TrustError: The public key is none.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415

    once = X25519PrivateKey.generate()
    mine = once.public_key().public_bytes_raw()
    key, nonce = _derived(once.private_bytes_raw(), public_key, salt=mine + public_key)
    return mine + ChaCha20Poly1305(key).encrypt(nonce, value, bound_to)


def open_secret(private_key: bytes, sealed: bytes, bound_to: bytes) -> bytes:
    """Return the value.

    Raises:
        TrustError: It was sealed for another key, as something else, or changed since.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415

    if len(sealed) < PUBLIC_KEY_BYTES + _TAG_BYTES:
        raise TrustError("the sealed value is too short to be one")
    once = sealed[:PUBLIC_KEY_BYTES]
    key, nonce = _derived(private_key, once, salt=once + public_key_of(private_key))
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed[PUBLIC_KEY_BYTES:], bound_to)
    except InvalidTag as error:
        raise TrustError("the value was not sealed for this, or was changed since") from error


def _derived(private_key: bytes, public_key: bytes, *, salt: bytes) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

    try:
        other = X25519PublicKey.from_public_bytes(public_key)
        # A point of small order gives a shared secret of zeros, which `exchange` refuses.
        shared = X25519PrivateKey.from_private_bytes(private_key).exchange(other)
    except ValueError as error:
        raise TrustError("this is no X25519 key to seal for") from error
    derived = HKDF(SHA256(), _KEY_BYTES + _NONCE_BYTES, salt, _INFO).derive(shared)
    return derived[:_KEY_BYTES], derived[_KEY_BYTES:]
