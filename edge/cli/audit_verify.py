"""`edge audit verify`."""

import argparse

from edge.cli.output import note, print_json, print_table
from edge.cli.session import add_device_option, connected, opened
from edge.cli.telemetry_common import telemetry
from edge.errors import BrokerError, DeadlineError, EdgeError, NotFoundError
from edge.fleet.audit import verify_device
from edge.fleet.devices import list_devices
from edge.fleet.observing import observe
from edge.model.audit import Verified
from edge.model.records import AUDIT

HELP = """\
Check that the devices' audit trails are whole: each record holds to the one before, and what is missing was told as
lost. Exit 1 when one was changed, removed, put in or moved. The newest records are held against what the device says
it has come to, if the broker can be reached."""
EXAMPLES = """\
examples:
  edge audit verify
  edge audit verify --device pi-1 --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)
    parser.add_argument("--offline", action="store_true", help="do not ask the broker for what the devices say")


def run(args: argparse.Namespace) -> int:
    """Verify."""
    with opened(args) as fleet, telemetry(fleet) as store:
        cluster = fleet.settings.cluster
        devices = [args.device] if args.device else store.devices(cluster, AUDIT.name)
        reports = {}
        if not args.offline:
            records = [one for one in list_devices(fleet.database) if one.device in devices]
            try:
                with connected(args, fleet) as link:
                    reports = {name: view.report for name, view in observe(link, fleet, records).items()}
            except (BrokerError, DeadlineError) as error:
                note(f"the devices' own word is not known: {error}")
        found = {name: verify_device(store, cluster, name, reports.get(name)) for name in devices}
    if not any(one.records for one in found.values()):
        raise NotFoundError("no audit record has been collected", hint="`edge telemetry collect` collects them.")
    _tell(args, found)
    broken = [name for name, one in found.items() if not one.intact]
    if broken:
        raise EdgeError(
            f"the audit trail of {', '.join(broken)} is not what the device wrote",
            hint="Somebody changed it: on the device's disk, on its way, or in this fleet's telemetry.db.",
        )
    return 0


def _tell(args: argparse.Namespace, found: dict[str, Verified]) -> None:
    if args.output == "json":
        print_json(
            {
                "devices": {
                    name: {
                        "records": one.records,
                        "intact": one.intact,
                        "findings": [
                            {"chain": each.chain, "n": each.n, "what": each.what, "broken": each.broken}
                            for each in one.findings
                        ],
                    }
                    for name, one in found.items()
                }
            }
        )
        return
    rows = [(name, str(one.records), "intact" if one.intact else "BROKEN") for name, one in found.items()]
    print_table(("DEVICE", "RECORDS", "TRAIL"), rows)
    for name, one in found.items():
        for each in one.findings:
            note(f"{name}: {'BROKEN: ' if each.broken else ''}{each.what}")
