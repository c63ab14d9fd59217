"""`edge fleet publish`."""

import argparse

from edge.cli.output import print_json, print_table
from edge.cli.session import connected, opened
from edge.fleet.clock import now
from edge.fleet.devices import find_device, list_devices
from edge.fleet.observing import observe
from edge.fleet.publishing import publish_newest
from edge.fleet.secrets import lacks_secrets
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.trust import Role

HELP = """\
Publish the newest desired state of devices, and the fleet's keys, again. Nothing changes on a device that has them
already; this brings them back to a broker that lost what it had retained, or that was away when something changed.
A device that lacks a secret its tasks name, because it had not told its key yet, is given it."""
EXAMPLES = """\
examples:
  edge fleet publish           every device
  edge fleet publish pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("device", nargs="*", metavar="DEVICE", help="which devices (default: all)")


def run(args: argparse.Namespace) -> int:
    """Publish."""
    with opened(args) as fleet:
        named = [find_device(fleet.database, fleet.settings.cluster, name) for name in args.device]
        records = named or list_devices(fleet.database)
        with connected(args, fleet) as link:
            observe(link, fleet, records)
            for record in records:
                if lacks_secrets(fleet.database, find_device(fleet.database, record.cluster, record.device)):
                    signers = fleet.signers(Role.DESIRED_STATE)
                    next_revision(fleet.database, signers, record, now(), nothing_new)
            done = {record.device: publish_newest(link, fleet.database, record, again=True) for record in records}
    if args.output == "json":
        print_json([{"device": name, "revision": revision} for name, revision in done.items()])
    else:
        print_table(("DEVICE", "REVISION"), [(name, str(revision or "-")) for name, revision in done.items()])
    return 0
