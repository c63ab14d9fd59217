"""The fleet's devices, as its database knows them."""

from dataclasses import dataclass

from edge.errors import NotFoundError
from edge.fleet.database import Database, Row
from edge.fleet.folder import Fleet


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """A device as the fleet knows it.

    Attributes:
        revision: Of the newest desired state composed for it; 0 when there is none.
        published_revision: Of the newest one that the broker acknowledged.
        reported_revision: In force on the device when it last reported.
        desired: The newest desired state, sealed.
        revoked_at: Since when no certificate of it counts; empty for one that may connect.
        secrets_key: The raw X25519 key to which its secrets are sealed; None until it has told it.
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
    revoked_at: str = ""
    secrets_key: bytes | None = None

    @property
    def may_connect(self) -> bool:
        """It is not revoked."""
        return not self.revoked_at


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


def _record(row: Row) -> DeviceRecord:
    return DeviceRecord(**dict(row))
