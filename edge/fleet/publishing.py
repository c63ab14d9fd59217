"""Bringing a device's newest desired state to the broker, whoever composed it."""

from edge.errors import BrokerError, DeadlineError
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.keyring import trust_chain
from edge.fleet.link import FleetLink
from edge.fleet.tasks import mark_published
from edge.model.topics import Topics
from edge.model.trust import TrustedSet
from edge.model.trust_chain import write_chain


def publish_newest(link: FleetLink, database: Database, device: DeviceRecord, *, again: bool = False) -> int:
    """Publish the newest desired state, retained, and wait for the acknowledgement; returns its revision.

    Another command may have published a newer one in between, which this one would then have replaced at the broker
    by an older: so it looks again, until what it published is the newest. The keys it is signed with go before it,
    `again` though the broker has acknowledged them.

    Raises:
        BrokerError, DeadlineError: The broker did not take it. It is stored all the same; the hint says how to go on.
    """
    while True:
        newest = find_device(database, device.cluster, device.device)
        publish_trust(link, database, newest, again=again)
        if newest.desired is None:
            return 0
        _publish(link, device, Topics(device.cluster, device.device).desired, newest.desired)
        mark_published(database, device, newest.revision)
        if find_device(database, device.cluster, device.device).revision == newest.revision:
            return newest.revision


def publish_trust(link: FleetLink, database: Database, device: DeviceRecord, *, again: bool = False) -> None:
    """Publish the chain of trust bundles for a device, retained, unless the broker has it already; or `again`.

    Raises:
        BrokerError, DeadlineError: As `publish_newest`.
    """
    chain = trust_chain(database)
    version = TrustedSet.version_of(chain[-1])
    # A fleet's first bundle is handed over with the device's identity.
    if len(chain) == 1 or (device.published_trust >= version and not again):
        return
    _publish(link, device, Topics(device.cluster, device.device).trust, write_chain(chain))
    with database.transaction():
        database.change(
            "UPDATE devices SET published_trust = max(published_trust, ?) WHERE cluster = ? AND device = ?",
            (version, device.cluster, device.device),
        )


def _publish(link: FleetLink, device: DeviceRecord, topic: str, envelope: bytes) -> None:
    try:
        link.publish(topic, envelope, retain=True)
    except (BrokerError, DeadlineError) as error:
        again = f"What was asked for is stored; `edge fleet publish {device.device}` sends it."
        error.hint = f"{error.hint} {again}".lstrip()
        raise
