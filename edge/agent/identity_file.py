"""The device's certificate and its key in one file, so that both are replaced at once.

`identity.pem` in the state directory begins with the digest of the certificate that was handed over with the
configuration. Another one handed over since is meant to count, and takes its place.
"""

import hashlib
from pathlib import Path
from typing import Final

from edge.agent.config import AgentConfig
from edge.errors import InvalidInputError
from edge.files import write_atomically

_ORIGIN: Final = "handed over: "


def identity_file(config: AgentConfig) -> Path | None:
    """Return the file, made where it is missing or no more what was handed over; None without a certificate.

    Raises:
        InvalidInputError: The certificate or the key that the configuration names cannot be read.
        StoreError: The file cannot be written.
    """
    if config.cert_file is None or config.key_file is None:
        return None
    try:
        certificate, key = config.cert_file.read_bytes(), config.key_file.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {error.filename}: {error.strerror}",
            hint="It was handed over with agent.toml; see `edge agent check-config`.",
        ) from error
    path = config.state_dir / "identity.pem"
    origin = _origin(certificate)
    if not path.exists() or not path.read_bytes().startswith(origin):
        write_atomically(path, origin + certificate + key)
    return path


def certificate_in_use(config: AgentConfig) -> bytes:
    """Return the certificate (PEM, with other things around it) that the agent connects with; nothing is written.

    Raises:
        OSError: The one that was handed over cannot be read.
        InvalidInputError: The configuration names none.
    """
    if config.cert_file is None:
        raise InvalidInputError(f"{config.path} names no certificate")
    certificate, path = config.cert_file.read_bytes(), config.state_dir / "identity.pem"
    renewed = path.read_bytes() if path.is_file() else b""
    return renewed if renewed.startswith(_origin(certificate)) else certificate


def replace_identity(config: AgentConfig, certificate: bytes, key: bytes) -> None:
    """Use a certificate and its key (PEM) from the next connection on.

    Raises:
        StoreError: They cannot be written: the former ones stay.
    """
    if config.cert_file is not None:
        origin = _origin(config.cert_file.read_bytes())
        write_atomically(config.state_dir / "identity.pem", origin + certificate + key)


def _origin(certificate: bytes) -> bytes:
    return f"{_ORIGIN}{hashlib.sha256(certificate).hexdigest()}\n".encode()
