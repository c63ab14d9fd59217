"""What `edge secret set|rm` and `edge fleet publish` have in common: devices get what they should have."""

import argparse
from collections.abc import Sequence

from edge.cli.session import connected
from edge.errors import BrokerError, DeadlineError
from edge.fleet.clock import now
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.folder import Fleet
from edge.fleet.observing import observe
from edge.fleet.publishing import publish_newest
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.trust import Role


def give_anew(args: argparse.Namespace, fleet: Fleet, names: Sequence[str]) -> dict[str, int]:
    """Compose and publish the next desired state of devices; returns its revision by device.

    Raises:
        BrokerError, DeadlineError: The broker is away: `edge fleet publish` does it later.
    """
    if not names:
        return {}
    signers = fleet.signers(Role.DESIRED_STATE)
    devices = [find_device(fleet.database, fleet.settings.cluster, name) for name in names]
    revisions = {}
    try:
        with connected(args, fleet) as link:
            observe(link, fleet, devices)
            for device in devices:
                next_revision(fleet.database, signers, device, now(), nothing_new)
                revisions[device.device] = publish_newest(link, fleet.database, device)
    except (BrokerError, DeadlineError) as error:
        error.hint = "It is changed here; `edge fleet publish` tells the devices once the broker is there."
        raise
    return revisions


def without_key(fleet: Fleet, names: Sequence[str]) -> list[DeviceRecord]:
    """Return those devices that have not told a key yet to which anything could be sealed."""
    devices = [find_device(fleet.database, fleet.settings.cluster, name) for name in names]
    return [device for device in devices if device.secrets_key is None]
