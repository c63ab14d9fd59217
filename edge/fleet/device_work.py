"""Services and schedules in the fleet database: what devices keep running, and start, by themselves."""

import json
from collections.abc import Callable
from typing import Final

from edge.errors import InvalidInputError, NotFoundError
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord
from edge.model.service_documents import DesiredSchedule, DesiredService

SERVICE: Final = "service"
SCHEDULE: Final = "schedule"


def services_of(database: Database, device: DeviceRecord) -> list[DesiredService]:
    """Return a device's services, by name."""
    return [DesiredService.model_validate_json(text) for text in _documents(database, device, SERVICE)]


def schedules_of(database: Database, device: DeviceRecord) -> list[DesiredSchedule]:
    """Return a device's schedules, by name."""
    return [DesiredSchedule.model_validate_json(text) for text in _documents(database, device, SCHEDULE)]


def find_service(database: Database, device: DeviceRecord, name: str) -> DesiredService:
    """Return a service.

    Raises:
        NotFoundError: The device has none of that name.
    """
    for service in services_of(database, device):
        if service.service_name == name:
            return service
    raise _unknown(SERVICE, device, name)


def adding_work(
    device: DeviceRecord, one: DesiredService | DesiredSchedule, *, new: bool
) -> Callable[[Database], None]:
    """Add a service or schedule, or with `new` False put it in the place of the one of its name.

    Raises (when called):
        InvalidInputError: There is one already.
    """
    kind, name = _key(one)

    def work(database: Database) -> None:
        known = database.row(
            "SELECT 1 FROM device_work WHERE cluster = ? AND device = ? AND kind = ? AND name = ?",
            (device.cluster, device.device, kind, name),
        )
        if new and known is not None:
            raise InvalidInputError(
                f"device {device.device} has a {kind} {name} already", hint=f"`edge {kind} update {name}` changes it."
            )
        database.change(
            "INSERT OR REPLACE INTO device_work VALUES (?, ?, ?, ?, ?)",
            (device.cluster, device.device, kind, name, json.dumps(one.to_wire())),
        )

    return work


def removing_work(device: DeviceRecord, kind: str, name: str) -> Callable[[Database], None]:
    """Remove a service or schedule.

    Raises (when called):
        NotFoundError: There is none.
    """

    def work(database: Database) -> None:
        gone = database.change(
            "DELETE FROM device_work WHERE cluster = ? AND device = ? AND kind = ? AND name = ?",
            (device.cluster, device.device, kind, name),
        )
        if not gone:
            raise _unknown(kind, device, name)

    return work


def _documents(database: Database, device: DeviceRecord, kind: str) -> list[str]:
    rows = database.rows(
        "SELECT document FROM device_work WHERE cluster = ? AND device = ? AND kind = ? ORDER BY name",
        (device.cluster, device.device, kind),
    )
    return [row["document"] for row in rows]


def _key(one: DesiredService | DesiredSchedule) -> tuple[str, str]:
    return (SERVICE, one.service_name) if isinstance(one, DesiredService) else (SCHEDULE, one.name)


def _unknown(kind: str, device: DeviceRecord, name: str) -> NotFoundError:
    return NotFoundError(f"device {device.device} has no {kind} {name}", hint=f"`edge {kind} ls` lists them.")
