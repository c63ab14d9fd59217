"""Who a device is to the broker: its certificate, the folder that is handed to it, and how it is taken back."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edge.errors import InvalidInputError, RefusedError, StoreError
from edge.files import make_folder, store_error, write_atomically
from edge.fleet.authority import Authority, Certificate, Identity
from edge.fleet.broker_config import OPERATOR
from edge.fleet.clock import timestamp
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.folder import Fleet
from edge.model.agent_toml import agent_configuration
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES, CertificateIssued, CertificateRequest
from edge.model.identifiers import check_name
from edge.model.topics import Topics

MOST_A_DAY: Final = 10
"""Certificates for one device; one that asks more often is broken, or somebody plays with it."""
_A_DAY: Final = timedelta(days=1)


def add_device(  # noqa: PLR0913 - each an option of the command
    fleet: Fleet, device: str, folder: Path, moment: datetime, *, force: bool = False, request: bytes | None = None
) -> DeviceRecord:
    """Make a device's identity and write it into `folder`, ready to be handed over.

    The folder gets `agent.toml`, `ca.crt`, `device.crt`, `device.key` (mode 0600) and `trust.json`; with `request`, a
    certificate request (PEM) of a device that keeps its key, no `device.key`. With `force` a known device gets a new
    certificate, also one that was revoked; its tasks and its revision counter stay.

    Raises:
        InvalidInputError: `device` is not a name, or is the operators'; the request is none.
        RefusedError: The device, or an identity in `folder`, exists already, and `force` is not given.
        StoreError: Something cannot be written.
    """
    cluster, broker = fleet.settings.cluster, fleet.settings.broker
    if check_name("device", device) == OPERATOR:
        raise InvalidInputError(
            f"a device cannot be called {OPERATOR}", hint="The broker knows the operators by that name."
        )
    with fleet.database.transaction():
        _refuse_existing(fleet.database, cluster, device, folder, force=force)
        authority = open_authority(fleet)
        identity: Certificate | Identity = (
            authority.issue_device(cluster, device, moment)
            if request is None
            else authority.sign_device(cluster, device, request, moment)
        )
        _make_folder(folder)
        if isinstance(identity, Identity):
            write_atomically(folder / "device.key", identity.key)
        write_atomically(folder / "device.crt", identity.certificate, 0o644)
        write_atomically(folder / "ca.crt", read_file(fleet.folder.ca_certificate), 0o644)
        write_atomically(folder / "trust.json", read_file(fleet.folder.trust_bundle), 0o644)
        write_atomically(folder / "agent.toml", agent_configuration(cluster, device, broker.host, broker.port), 0o644)
        store_identity(fleet.database, cluster, device, identity, moment)
    return find_device(fleet.database, cluster, device)


def revoke_device(fleet: Fleet, device: str, moment: datetime) -> list[str]:
    """Let no certificate of a device count any more; returns the serials that did until now. Asking twice is fine.

    The broker refuses them once it reads the revocation list and the access list again.

    Raises:
        NotFoundError: There is no such device.
    """
    cluster = fleet.settings.cluster
    with fleet.database.transaction():
        find_device(fleet.database, cluster, device)
        rows = fleet.database.rows(
            "SELECT serial FROM certificates WHERE cluster = ? AND device = ? AND revoked_at = ''", (cluster, device)
        )
        since = (timestamp(moment), cluster, device)
        fleet.database.change(
            "UPDATE certificates SET revoked_at = ? WHERE cluster = ? AND device = ? AND revoked_at = ''", since
        )
        fleet.database.change(
            "UPDATE devices SET revoked_at = ? WHERE cluster = ? AND device = ? AND revoked_at = ''", since
        )
    return [row["serial"] for row in rows]


def answer_request(fleet: Fleet, device: Topics, payload: bytes, moment: datetime) -> bytes:
    """Return the answer to a device's `CertificateRequest`. That it comes from that device is the broker's word.

    Raises:
        InvalidInputError, NotFoundError, RefusedError: As `renew_device`.
    """
    if len(payload) > MAXIMUM_DOCUMENT_BYTES:
        raise InvalidInputError(f"a request of {len(payload)} bytes")
    try:
        asked = CertificateRequest.model_validate_json(payload)
    except ValidationError as error:
        raise InvalidInputError("no request for a certificate") from error
    certificate = renew_device(fleet, device.cluster, device.device, asked.request.encode(), moment)
    return json.dumps(CertificateIssued(certificate=certificate.decode()).to_wire()).encode()


def renew_device(fleet: Fleet, cluster: str, device: str, request: bytes, moment: datetime) -> bytes:
    """Return a new certificate (PEM) for a device that asks for one by its present one. That one stays valid.

    It lasts as long as any device's certificate does.

    Raises:
        InvalidInputError: The request is none, or not for this device.
        NotFoundError: There is no such device.
        RefusedError: It was revoked, or has had several certificates today.
    """
    with fleet.database.transaction():
        record = find_device(fleet.database, cluster, device)
        if not record.may_connect:
            raise RefusedError(f"device {device} was revoked at {record.revoked_at}")
        row = fleet.database.row(
            "SELECT count(*) AS some FROM certificates WHERE cluster = ? AND device = ? AND issued_at > ?",
            (cluster, device, timestamp(moment - _A_DAY)),
        )
        if row is not None and row["some"] >= MOST_A_DAY:
            raise RefusedError(f"device {device} has had {row['some']} certificates within a day")
        identity = open_authority(fleet).sign_device(cluster, device, request, moment)
        store_identity(fleet.database, cluster, device, identity, moment)
    return identity.certificate


def revocation_list(fleet: Fleet, moment: datetime) -> bytes:
    """Return the CRL (PEM) of the fleet's CA."""
    rows = fleet.database.rows("SELECT serial, revoked_at FROM certificates WHERE revoked_at <> ''")
    serials = {row["serial"]: datetime.fromisoformat(row["revoked_at"]) for row in rows}
    return open_authority(fleet).revocation_list(serials, int(moment.timestamp()), moment)


def open_authority(fleet: Fleet) -> Authority:
    """Return the fleet's CA.

    Raises:
        StoreError: Its certificate or key cannot be read.
    """
    return Authority(read_file(fleet.folder.ca_certificate), read_file(fleet.folder.ca_key))


def store_identity(
    database: Database, cluster: str, device: str, identity: Certificate | Identity, moment: datetime
) -> None:
    """Note a device's new certificate: it is let in from the next access list on. Only inside a transaction."""
    expires_at = timestamp(identity.expires_at)
    database.change(
        "INSERT INTO devices (cluster, device, added_at, certificate_serial, certificate_expires_at)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET certificate_serial = excluded.certificate_serial,"
        " certificate_expires_at = excluded.certificate_expires_at, revoked_at = ''",
        (cluster, device, timestamp(moment), identity.serial, expires_at),
    )
    database.change(
        "INSERT INTO certificates (serial, cluster, device, issued_at, expires_at) VALUES (?, ?, ?, ?, ?)",
        (identity.serial, cluster, device, timestamp(moment), expires_at),
    )


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


def read_file(path: Path) -> bytes:
    """Read a file of the fleet's folder.

    Raises:
        StoreError: It is missing, or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing", hint="Put back a copy of the fleet folder.") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error
