"""Who holds a fleet's keys: files, with a passphrase or without, and other programs.

Everything else takes an `edge.model.envelope.Signer`. A key is opened when it signs first: a passphrase is asked for
only when it is needed.
"""

import base64
import getpass
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.errors import EdgeError, InvalidInputError, NotFoundError, RefusedError, StoreError
from edge.files import store_error, write_atomically
from edge.model.envelope import SIGNATURE_BYTES, key_id_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PASSPHRASE_FILE: Final = "EDGE_KEY_PASSPHRASE_FILE"  # noqa: S105 - the name of a variable
"""The environment variable that names a file with the passphrase, where nobody can be asked."""
SIGNER_SECONDS: Final = 120.0
"""How long another program may take: somebody may have to touch a token."""
_OTHERS: Final = 0o077

Ask = Callable[[str], bytes]
"""Returns a passphrase, told what for."""


def ask_passphrase(what: str) -> bytes:
    """Return a passphrase from the file that the environment names, or from the terminal.

    Raises:
        RefusedError: Neither is there.
    """
    named = os.environ.get(PASSPHRASE_FILE)
    if named:
        return _read_secret(Path(named)).rstrip(b"\r\n")
    if not sys.stdin.isatty():
        raise RefusedError(
            f"a passphrase is needed for {what}, and nobody is there to be asked",
            hint=f"Put it into a file that only you can read, and its name into {PASSPHRASE_FILE}.",
        )
    return getpass.getpass(f"Passphrase for {what}: ", stream=sys.stderr).encode()


class FileSigner:
    """An Ed25519 key in a PKCS #8 PEM file that only its owner may read."""

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private

    @classmethod
    def create(cls, path: Path, passphrase: bytes = b"") -> "FileSigner":
        """Make a new key at `path`, mode 0600; encrypted (PBES2, as OpenSSL reads it) when there is a passphrase.

        Raises:
            StoreError: The file cannot be written.
        """
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - heavy, used here only
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

        private = Ed25519PrivateKey.generate()
        encryption: serialization.KeySerializationEncryption = (
            serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        )
        pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        write_atomically(path, pem)
        return cls(private)

    @classmethod
    def load(cls, path: Path, ask: Ask = ask_passphrase) -> "FileSigner":
        """Read the key at `path`.

        Raises:
            NotFoundError: There is none.
            RefusedError: Others may read it: it may be stolen already. Or its passphrase is wrong, or not to be had.
            StoreError: It is no Ed25519 key, or cannot be read.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        pem = _read_secret(path)
        encrypted = pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
        passphrase = ask(str(path)) if encrypted else None
        try:
            private = load_pem_private_key(pem, passphrase)
        except (ValueError, TypeError) as error:
            if encrypted:
                raise RefusedError(f"this is not the passphrase of {path}") from error
            raise StoreError(f"{path} is not a private key in PEM") from error
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


@dataclass(frozen=True)
class LateFileSigner:
    """A key file whose public half is known: read when it signs, not before."""

    path: Path
    key_id: str
    ask: Ask = ask_passphrase

    @cached_property
    def _signer(self) -> FileSigner:
        signer = FileSigner.load(self.path, self.ask)
        if signer.key_id != self.key_id:
            raise StoreError(f"{self.path} holds the key {signer.key_id[:12]} and not {self.key_id[:12]}")
        return signer

    def sign(self, message: bytes) -> bytes:
        """Return the 64 byte signature of `message`. Raises as `FileSigner.load`."""
        return self._signer.sign(message)


@dataclass(frozen=True)
class CommandSigner:
    """A key that another program holds: an HSM, a smart card, a machine without a network.

    The program gets the message on its standard input and writes the Ed25519 signature of it to its standard output,
    64 raw bytes or base64; `EDGE_KEY_ID` says by which key. What it gives is proved before it is used.
    """

    command: tuple[str, ...]
    public_key: bytes

    @property
    def key_id(self) -> str:
        """The name of the key in trust bundles and envelopes."""
        return key_id_of(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 byte signature of `message`.

        Raises:
            EdgeError: The program fails, takes too long, or gives no signature of that key.
        """
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - heavy, used here only
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

        signature = self._answer(message)
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except InvalidSignature as error:
            raise EdgeError(f"{self.command[0]} gave no signature by key {self.key_id[:12]}") from error
        return signature

    def _answer(self, message: bytes) -> bytes:
        environment = {**os.environ, "EDGE_KEY_ID": self.key_id}
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own program
                self.command, input=message, stdout=subprocess.PIPE, timeout=SIGNER_SECONDS, env=environment, check=True
            )
        except subprocess.TimeoutExpired as error:
            raise EdgeError(f"{self.command[0]} did not sign within {SIGNER_SECONDS:g} s") from error
        except (OSError, subprocess.CalledProcessError) as error:
            raise EdgeError(f"{self.command[0]} could not sign: {error}") from error
        if len(done.stdout) == SIGNATURE_BYTES:
            return done.stdout
        try:
            return base64.b64decode(done.stdout.strip(), validate=True)
        except ValueError as error:
            raise EdgeError(f"{self.command[0]} gave {len(done.stdout)} bytes that are no signature") from error


def command_signer(command: Sequence[str], public_key: bytes) -> CommandSigner:
    """Return a signer that was proved to work: it has signed something.

    Raises:
        InvalidInputError: There is no command.
        EdgeError: As `CommandSigner.sign`.
    """
    if not command:
        raise InvalidInputError("the signer command is empty")
    signer = CommandSigner(tuple(command), public_key)
    signer.sign(b"edge asks whether this signer works")
    return signer


def read_public_key(path: Path) -> bytes:
    """Return the raw public key of a PEM file (SubjectPublicKeyInfo, as `openssl pkey -pubout` writes it).

    Of a P-256 key, as cosign makes them, the compressed point: such a key can sign images, and nothing else.

    Raises:
        NotFoundError, StoreError: It cannot be read.
        InvalidInputError: It is neither an Ed25519 nor a P-256 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - heavy, used here only
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    wrong = InvalidInputError(f"{path} is not an Ed25519 public key in PEM (or, for images, a P-256 one)")
    try:
        key = load_pem_public_key(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no key at {path}") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise wrong from error
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    if not isinstance(key, Ed25519PublicKey):
        raise wrong
    return key.public_bytes_raw()


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
