"""Bringing a device's newest desired state to the broker, whoever composed it."""

from edge.errors import BrokerError, DeadlineError
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.link import FleetLink
from edge.fleet.tasks import mark_published
from edge.model.topics import Topics


def publish_newest(link: FleetLink, database: Database, device: DeviceRecord) -> int:
    """Publish the newest desired state, retained, and wait for the acknowledgement; returns its revision.

    Another command may have published a newer one in between, which this one would then have replaced at the broker
    by an older: so it looks again, until what it published is the newest.

    Raises:
        BrokerError, DeadlineError: The broker did not take it. It is stored all the same; the hint says how to go on.
    """
    while True:
        newest = find_device(database, device.cluster, device.device)
        if newest.desired is None:
            return 0
        _publish(link, device, newest.desired)
        mark_published(database, device, newest.revision)
        if find_device(database, device.cluster, device.device).revision == newest.revision:
            return newest.revision


def _publish(link: FleetLink, device: DeviceRecord, envelope: bytes) -> None:
    try:
        link.publish(Topics(device.cluster, device.device).desired, envelope, retain=True)
    except (BrokerError, DeadlineError) as error:
        again = f"What was asked for is stored; `edge fleet publish {device.device}` sends it."
        error.hint = f"{error.hint} {again}".lstrip()
        raise
