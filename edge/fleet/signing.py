"""The key that signs assignments and commands, as a file.

Everything else takes an `edge.model.envelope.Signer`, so that a token or another program can stand here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import NotFoundError, RefusedError, StoreError
from edge.files import store_error, write_atomically
from edge.model.envelope import key_id_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_OTHERS = 0o077


@dataclass(frozen=True)
class FileSigner:
    """An Ed25519 key read from a PKCS #8 PEM file that only its owner may read."""

    _private: "Ed25519PrivateKey"

    @classmethod
    def create(cls, path: Path) -> "FileSigner":
        """Make a new key at `path`, mode 0600.

        Raises:
            StoreError: The file cannot be written.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy, used here only
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_atomically(path, pem)
        return cls(private)

    @classmethod
    def load(cls, path: Path) -> "FileSigner":
        """Read the key at `path`.

        Raises:
            NotFoundError: There is none.
            RefusedError: Others may read it: it may be stolen already.
            StoreError: It is no Ed25519 key, or cannot be read.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        try:
            private = load_pem_private_key(_read_secret(path), None)
        except (ValueError, TypeError) as error:
            raise StoreError(f"{path} is not an unencrypted private key in PEM") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise StoreError(f"{path} is not an Ed25519 key")
        return cls(private)

    @property
    def public_key(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The name of the key in trust bundles and envelopes."""
        return key_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 byte signature of `message`."""
        return self._private.sign(message)


def _read_secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if mode & _OTHERS:
            raise RefusedError(
                f"{path} can be read by others (mode {mode & 0o777:o})",
                hint=f"Run `chmod 600 {path}`; if others had it, replace the key.",
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no key at {path}") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
