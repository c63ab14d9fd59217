"""The fleet's secrets: their values at the operator's, and what each device is given of them.

A value is kept encrypted (ChaCha20-Poly1305) by a key of its own in the fleet's folder, beside the keys that sign: a
copy of the database alone tells nothing, a copy of the folder everything. Of each secret only the newest value is kept.
"""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.errors import InvalidInputError, NotFoundError, StoreError
from edge.files import store_error, write_atomically
from edge.fleet.clock import timestamp
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord
from edge.model.sealing import seal_secret
from edge.model.secrets import MAXIMUM_SECRETS, MAXIMUM_VALUE, DesiredSecret, associated_data, check_secret_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_KEY_FILE: Final = "secrets.key"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class SecretRecord:
    """A secret, without its value.

    Attributes:
        version: Of the newest value.
        devices: `(device, version)` of those that were given it with their newest desired state.
    """

    name: str
    version: int
    set_at: str
    devices: tuple[tuple[str, int], ...] = ()


def check_value(value: bytes) -> bytes:
    """Return a value that can be an environment variable.

    Raises:
        InvalidInputError: It cannot.
    """
    if not value:
        raise InvalidInputError("the value is empty", hint="`edge secret rm` removes a secret.")
    if len(value) > MAXIMUM_VALUE:
        raise InvalidInputError(f"the value has {len(value)} bytes; {MAXIMUM_VALUE} are the most")
    if b"\0" in value:
        raise InvalidInputError("the value holds a zero byte, which no environment variable can hold")
    return value


def set_secret(database: Database, name: str, value: bytes, moment: datetime) -> int:
    """Store a value and return its version; what it was before is gone.

    Raises:
        InvalidInputError: The name is none, or the value cannot be one.
        StoreError: It cannot be stored.
    """
    check_secret_name(name)
    check_value(value)
    with database.transaction():
        row = database.row("SELECT version FROM secrets WHERE name = ?", (name,))
        version = (row["version"] if row else 0) + 1
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + _cipher(database).encrypt(nonce, value, _bound(name, version))
        database.change(
            "INSERT INTO secrets (name, version, set_at, value) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " version = excluded.version, set_at = excluded.set_at, value = excluded.value",
            (name, version, timestamp(moment), sealed),
        )
    return int(version)


def remove_secret(database: Database, name: str, moment: datetime) -> None:
    """Forget a value. The version goes on from there if the name comes again.

    Raises:
        NotFoundError: There is no such secret.
    """
    with database.transaction():
        changed = database.change(
            "UPDATE secrets SET value = NULL, set_at = ? WHERE name = ? AND value IS NOT NULL",
            (timestamp(moment), name),
        )
    if not changed:
        raise _unknown([name])


def list_secrets(database: Database) -> list[SecretRecord]:
    """Return the secrets, by name."""
    rows = database.rows("SELECT device, name, version FROM device_secrets ORDER BY device")
    return [
        SecretRecord(
            row["name"],
            row["version"],
            row["set_at"],
            tuple((one["device"], one["version"]) for one in rows if one["name"] == row["name"]),
        )
        for row in database.rows("SELECT name, version, set_at FROM secrets WHERE value IS NOT NULL ORDER BY name")
    ]


def require_secrets(database: Database, names: Iterable[str]) -> None:
    """Let a command go on only if the fleet has these secrets.

    Raises:
        NotFoundError: It has not.
    """
    known = {row["name"] for row in database.rows("SELECT name FROM secrets WHERE value IS NOT NULL")}
    missing = sorted(set(names) - known)
    if missing:
        raise _unknown(missing)


def holders(database: Database, name: str) -> list[str]:
    """Return the devices whose newest desired state has, or should have, a secret."""
    rows = database.rows("SELECT device FROM device_secrets WHERE name = ? ORDER BY device", (name,))
    return [row["device"] for row in rows]


def seal_for(database: Database, device: DeviceRecord, names: Iterable[str]) -> Sequence[DesiredSecret]:
    """Return the secrets of these names as a device is given them; inside the transaction of its next desired state.

    What the fleet does not have, or cannot seal because the device has not told its key yet, is left out: the device
    says so at the task that waits for it. What was given is noted.

    Raises:
        InvalidInputError: They are too many.
        StoreError: The key or a value cannot be read.
    """
    wanted = sorted(set(names))
    if len(wanted) > MAXIMUM_SECRETS:
        raise InvalidInputError(
            f"device {device.device} would need {len(wanted)} secrets; {MAXIMUM_SECRETS} is the most"
        )
    where = (device.cluster, device.device)
    database.change("DELETE FROM device_secrets WHERE cluster = ? AND device = ?", where)
    given = []
    for name in wanted:
        row = database.row("SELECT version, value FROM secrets WHERE name = ? AND value IS NOT NULL", (name,))
        version = row["version"] if row and device.secrets_key else 0
        database.change("INSERT INTO device_secrets VALUES (?, ?, ?, ?)", (*where, name, version))
        if row is None or device.secrets_key is None:
            continue
        value = _opened(database, name, version, bytes(row["value"]))
        sealed = seal_secret(device.secrets_key, value, associated_data(*where, name, version))
        given.append(DesiredSecret(name=name, version=version, sealed=base64.b64encode(sealed).decode()))
    return given


def lacks_secrets(database: Database, device: DeviceRecord) -> bool:
    """Say whether a device's next desired state could have a secret, or a newer value, that its newest one has not."""
    row = database.row(
        "SELECT 1 FROM device_secrets JOIN secrets USING (name) WHERE cluster = ? AND device = ?"
        " AND secrets.value IS NOT NULL AND secrets.version <> device_secrets.version",
        (device.cluster, device.device),
    )
    return row is not None and device.secrets_key is not None


def _opened(database: Database, name: str, version: int, stored: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - heavy, used here only

    try:
        return _cipher(database).decrypt(stored[:_NONCE_BYTES], stored[_NONCE_BYTES:], _bound(name, version))
    except InvalidTag as error:
        raise StoreError(
            f"secret {name} cannot be read with {_key_file(database)}",
            hint="Put back the key that belongs to the database, or set the secret anew.",
        ) from error


def _bound(name: str, version: int) -> bytes:
    return f"edge fleet secret|{name}|{version}".encode()


def _key_file(database: Database) -> Path:
    return database.path.parent / _KEY_FILE


def _cipher(database: Database) -> "ChaCha20Poly1305":
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305  # noqa: PLC0415 - heavy, used here only

    path = _key_file(database)
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        if database.row("SELECT 1 FROM secrets WHERE value IS NOT NULL"):
            raise StoreError(f"{path} is missing", hint="Put back a copy of the fleet folder.") from None
        key = os.urandom(_KEY_BYTES)
        write_atomically(path, key)
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
    if len(key) != _KEY_BYTES:
        raise StoreError(f"{path} is no key", hint="Put back a copy of the fleet folder.")
    return ChaCha20Poly1305(key)


def _unknown(names: Sequence[str]) -> NotFoundError:
    plural = "secrets" if len(names) > 1 else "secret"
    return NotFoundError(
        f"the fleet has no {plural} {', '.join(names)}",
        hint=f"`edge secret set {names[0]}` sets one; `edge secret ls` lists them.",
    )
