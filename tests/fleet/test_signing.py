from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge.errors import NotFoundError, RefusedError, StoreError
from edge.fleet.signing import FileSigner


def test_a_key_is_the_same_after_reading_it_back(tmp_path: Path) -> None:
    made = FileSigner.create(tmp_path / "signing.key")
    read = FileSigner.load(tmp_path / "signing.key")
    assert read.key_id == made.key_id
    Ed25519PublicKey.from_public_bytes(made.public_key).verify(read.sign(b"message"), b"message")


def test_a_key_file_is_only_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    FileSigner.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(RefusedError, match="read by others"):
        FileSigner.load(path)


def test_a_missing_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no key"):
        FileSigner.load(tmp_path / "signing.key")


def other_kind() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize("data", [b"", b"rubbish", other_kind()])
def test_what_is_no_ed25519_key_is_told(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(StoreError):
        FileSigner.load(path)
