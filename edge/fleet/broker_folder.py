"""The folder a fleet's Mosquitto reads: configuration, access list, certificates; kept in step with the devices."""

import os
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from edge.errors import StoreError
from edge.files import store_error, write_atomically
from edge.fleet.activations import Activation, list_activations
from edge.fleet.broker_config import BrokerConfig, acl_file, mosquitto_conf
from edge.fleet.broker_passwords import password_file
from edge.fleet.database import Database
from edge.fleet.devices import list_devices
from edge.fleet.folder import Fleet
from edge.fleet.identities import open_authority, revocation_list

_REVOKED: Final = "revoked.pem"
_PASSWORDS: Final = "passwords"
_SETTING: Final = "broker_folder"
_ENROLLMENT_SETTING: Final = "enrollment_port"
ENROLLMENT_PORT: Final = 8885
"""Next to the others; a device that enrols asks there when nothing else is said."""
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1")
"""An operator on the broker's own machine comes by loopback."""


def write_broker_folder(  # noqa: PLR0913 - each an option of the command
    fleet: Fleet,
    folder: Path,
    moment: datetime,
    *,
    names: Sequence[str] = (),
    address: str = "",
    enrollment_port: int | None = None,
    user: str = "mosquitto",
    log_file: Path | None = None,
) -> BrokerConfig:
    """Write everything Mosquitto needs into `folder` and remember the folder for later devices.

    The server's certificate names the hosts that the fleet was made with, loopback, and `names`. It is made anew each
    time; Mosquitto must be restarted to use it. With `enrollment_port` there is a listener for devices that have no
    certificate yet, without it none. Files Mosquitto reads as its own user are given to that user when
    this runs as root.

    Raises:
        InvalidInputError: A name or path cannot be used.
        StoreError: Something cannot be written.
    """
    folder = folder.absolute()
    config = BrokerConfig(
        ca_file=folder / "ca.crt",
        cert_file=folder / "server.crt",
        key_file=folder / "server.key",
        acl_file=folder / "acl",
        device_port=fleet.settings.broker.port,
        operator_port=fleet.settings.operator.port,
        enrollment_port=enrollment_port,
        password_file=None if enrollment_port is None else folder / _PASSWORDS,
        address=address,
        persistence_dir=folder / "data",
        crl_file=folder / _REVOKED,
        log_file=log_file,
        user=user,
    )
    text = mosquitto_conf(config)
    authority = open_authority(fleet)
    hosts = (fleet.settings.broker.host, fleet.settings.operator.host, *names, *_ALWAYS)
    identity = authority.issue_server(hosts, moment)
    try:
        (folder / "data").mkdir(mode=0o750, parents=True, exist_ok=True)
        _write(config.key_file, identity.key, 0o600, user)
        _write(config.cert_file, identity.certificate, 0o644, user)
        _write(config.ca_file, _read(fleet.folder.ca_certificate), 0o644, user)
        _write_lists(fleet, folder, moment, user)
        _write(folder / "mosquitto.conf", text.encode(), 0o644, user)
        _give(folder / "data", user)
    except OSError as error:
        raise store_error(f"cannot write into {folder}", error) from error
    _remember(fleet.database, folder, user, enrollment_port)
    return config


def refresh_access_list(fleet: Fleet, moment: datetime) -> Path | None:
    """Write the access list, the revocation list and the passwords anew after devices or activations came or went.

    Returns the access list, or None when they are kept elsewhere. Mosquitto reads them at SIGHUP.
    """
    row = fleet.database.row("SELECT value FROM settings WHERE key = ?", (_SETTING,))
    if row is None:
        return None
    user, _, folder = row["value"].partition(":")
    path = Path(folder) / "acl"
    if not path.parent.is_dir():
        return None
    _write_lists(fleet, path.parent, moment, user)
    return path


def enrollment_port(database: Database) -> int | None:
    """Return where the broker takes devices that have no certificate yet; None when it was not told to."""
    row = database.row("SELECT value FROM settings WHERE key = ?", (_ENROLLMENT_SETTING,))
    return int(row["value"]) if row is not None and row["value"] else None


def _remember(database: Database, folder: Path, user: str, port: int | None) -> None:
    values = {_SETTING: f"{user}:{folder}", _ENROLLMENT_SETTING: "" if port is None else str(port)}
    with database.transaction():
        for pair in values.items():
            database.change("INSERT OR REPLACE INTO settings (key, value) VALUES (?, ?)", pair)


def _write_lists(fleet: Fleet, folder: Path, moment: datetime, user: str) -> None:
    # Before the access list: who has no password any more shall not have rights for a moment longer.
    let_in = [one for one in list_activations(fleet.database) if one.may_connect(moment)]
    _write(folder / _PASSWORDS, _passwords(let_in), 0o600, user)
    _write(folder / "acl", _acl(fleet.database, let_in), 0o600, user)
    _write(folder / _REVOKED, revocation_list(fleet, moment), 0o644, user)


def _acl(database: Database, activations: Sequence[Activation]) -> bytes:
    devices = [(record.cluster, record.device) for record in list_devices(database) if record.may_connect]
    return acl_file(devices, [one.id for one in activations]).encode()


def _passwords(activations: Sequence[Activation]) -> bytes:
    return password_file((one.id.user, one.password_hash) for one in activations).encode()


def _write(path: Path, data: bytes, mode: int, user: str) -> None:
    write_atomically(path, data, mode)
    try:
        _give(path, user)
    except OSError as error:
        raise store_error(f"cannot give {path} to {user}", error) from error


def _give(path: Path, user: str) -> None:
    """Only root can give files away, and only root's Mosquitto changes its user."""
    if os.geteuid() != 0:
        return
    try:
        shutil.chown(path, user, user)
    except LookupError as error:
        raise StoreError(
            f"there is no account {user!r} here", hint="Install mosquitto, or name one by --user."
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
