"""`edge device revoke`."""

import argparse

from edge.cli.output import note, print_fields, print_json
from edge.cli.session import opened
from edge.fleet.broker_folder import refresh_access_list
from edge.fleet.clock import now
from edge.fleet.identities import revoke_device

HELP = """\
Take a device's right to the broker: it was stolen, or sold. Its certificates stand on the revocation list and its
branch leaves the access list; both count once Mosquitto has read them (SIGHUP). `edge device add --force` lets it in
again, with a new certificate."""
EXAMPLES = """\
examples:
  edge device revoke pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("device", metavar="DEVICE", help="which device")


def run(args: argparse.Namespace) -> int:
    """Revoke it."""
    with opened(args) as fleet:
        serials = revoke_device(fleet, args.device, now())
        access_list = refresh_access_list(fleet, now())
    told = {"device": args.device, "revokedCertificates": serials, "accessList": str(access_list or "")}
    if args.output == "json":
        print_json(told)
        return 0
    print_fields([("device", args.device), ("revoked certificates", ", ".join(serials) or "none")])
    if access_list is None:
        note("The broker must be told: edge fleet broker-config DIR")
    else:
        note(f"{access_list.parent} refuses it as soon as Mosquitto reads it again: kill -HUP its process")
    return 0
