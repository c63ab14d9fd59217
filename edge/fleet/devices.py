"""The fleet's devices, and the folder that is handed to a new one."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edge.errors import InvalidInputError, NotFoundError, RefusedError, StoreError
from edge.files import make_folder, store_error, write_atomically
from edge.fleet.broker_config import OPERATOR
from edge.fleet.clock import timestamp
from edge.fleet.database import Database, Row
from edge.fleet.folder import Address, Fleet
from edge.model.identifiers import check_name


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device as the fleet knows it.

    Attributes:
        revision: Of the newest desired state composed for it; 0 when there is none.
        published_revision: Of the newest one that the broker acknowledged.
        reported_revision: In force on the device when it last reported.
        desired: The newest desired state, sealed.
        published_trust: Version of the newest trust bundle that the broker acknowledged for it.
    """

    cluster: str
    device: str
    added_at: str
    certificate_serial: str
    certificate_expires_at: str
    revision: int
    published_revision: int
    reported_revision: int
    desired: bytes | None
    published_trust: int = 0


def find_device(database: Database, cluster: str, device: str) -> DeviceRecord:
    """Return a device.

    Raises:
        NotFoundError: The fleet has none of that name.
    """
    row = database.row("SELECT * FROM devices WHERE cluster = ? AND device = ?", (cluster, device))
    if row is None:
        raise NotFoundError(
            f"there is no device {device} in cluster {cluster}",
            hint=f"`edge device ls` lists the devices; `edge device add {device}` makes one.",
        )
    return _record(row)


def list_devices(database: Database) -> list[DeviceRecord]:
    """Return all devices, by name."""
    return [_record(row) for row in database.rows("SELECT * FROM devices ORDER BY cluster, device")]


def the_device(fleet: Fleet, name: str | None) -> DeviceRecord:
    """Return the named device, or the fleet's only one when no name is given.

    Raises:
        NotFoundError: There is none, or none was named and there are several.
    """
    if name is not None:
        return find_device(fleet.database, fleet.settings.cluster, name)
    devices = list_devices(fleet.database)
    if len(devices) == 1:
        return devices[0]
    if not devices:
        raise NotFoundError("the fleet has no device yet", hint="Add one with `edge device add NAME`.")
    names = ", ".join(record.device for record in devices[:5])
    raise NotFoundError(f"the fleet has {len(devices)} devices", hint=f"Name one with --device: {names} …")


def add_device(fleet: Fleet, device: str, folder: Path, moment: datetime, *, force: bool = False) -> DeviceRecord:
    """Make a device's identity and write it into `folder`, ready to be handed over.

    The folder gets `agent.toml`, `ca.crt`, `device.crt`, `device.key` (mode 0600) and `trust.json`. With `force` a
    known device gets a new certificate; its tasks and its revision counter stay.

    Raises:
        InvalidInputError: `device` is not a name, or is the operators'.
        RefusedError: The device, or an identity in `folder`, exists already, and `force` is not given.
        StoreError: Something cannot be written.
    """
    from edge.fleet.authority import Authority  # noqa: PLC0415 - heavy, used here only

    cluster = fleet.settings.cluster
    if check_name("device", device) == OPERATOR:
        raise InvalidInputError(
            f"a device cannot be called {OPERATOR}", hint="The broker knows the operators by that name."
        )
    with fleet.database.transaction():
        _refuse_existing(fleet.database, cluster, device, folder, force=force)
        authority = Authority(_read(fleet.folder.ca_certificate), _read(fleet.folder.ca_key))
        identity = authority.issue_device(cluster, device, moment)
        _make_folder(folder)
        write_atomically(folder / "device.key", identity.key)
        write_atomically(folder / "device.crt", identity.certificate, 0o644)
        write_atomically(folder / "ca.crt", _read(fleet.folder.ca_certificate), 0o644)
        write_atomically(folder / "trust.json", _read(fleet.folder.trust_bundle), 0o644)
        write_atomically(folder / "agent.toml", agent_configuration(cluster, device, fleet.settings.broker), 0o644)
        fleet.database.change(
            "INSERT INTO devices (cluster, device, added_at, certificate_serial, certificate_expires_at)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET certificate_serial = excluded.certificate_serial,"
            " certificate_expires_at = excluded.certificate_expires_at",
            (cluster, device, timestamp(moment), identity.serial, timestamp(identity.expires_at)),
        )
    return find_device(fleet.database, cluster, device)


def agent_configuration(cluster: str, device: str, broker: Address) -> bytes:
    """Write a device's `agent.toml`; its relative paths are relative to the file."""
    return f"""\
version = 1

[device]
cluster = {json.dumps(cluster)}
id = {json.dumps(device)}

[broker]
host = {json.dumps(broker.host)}
port = {broker.port}
ca_file = "ca.crt"
cert_file = "device.crt"
key_file = "device.key"
keepalive_seconds = 60

[trust]
bundle = "trust.json"

[storage]
state_dir = "state"

[podman]
socket = "/run/podman/podman.sock"

[policy]
allow_privileged = false
""".encode()


def _refuse_existing(database: Database, cluster: str, device: str, folder: Path, *, force: bool) -> None:
    if force:
        return
    if database.row("SELECT 1 FROM devices WHERE cluster = ? AND device = ?", (cluster, device)):
        raise RefusedError(
            f"device {device} has an identity already",
            hint="--force makes a new certificate for it; its tasks stay. The former one stays valid until it expires.",
        )
    if (folder / "device.key").exists():
        raise RefusedError(
            f"{folder} holds the identity of a device already",
            hint="Name another folder with --out DIR, or overwrite it with --force.",
        )


def _make_folder(folder: Path) -> None:
    try:
        make_folder(folder)
    except OSError as error:
        raise store_error(f"cannot make {folder}", error) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", hint="Put back a copy of the fleet folder.") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error


def _record(row: Row) -> DeviceRecord:
    return DeviceRecord(**dict(row))
