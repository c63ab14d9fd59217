"""`edge fleet activation revoke`."""

import argparse

from edge.cli.output import note, print_fields, print_json
from edge.cli.session import opened
from edge.fleet.activations import revoke_activation
from edge.fleet.broker_folder import refresh_access_list
from edge.fleet.clock import now
from edge.model.enrollment import ActivationId

HELP = """\
Let nobody enrol by an activation any more, from now on; the broker knows it no more once Mosquitto has read its lists
(SIGHUP). Devices that enrolled by it stay: `edge device revoke` is for them."""
EXAMPLES = """\
examples:
  edge fleet activation revoke shop.0123456789abcdef"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("activation", metavar="ID", help="which activation")


def run(args: argparse.Namespace) -> int:
    """Revoke it."""
    with opened(args) as fleet:
        activation = revoke_activation(fleet, ActivationId.parse(args.activation), now())
        access_list = refresh_access_list(fleet, now())
    told = {"activationId": str(activation.id), "revokedAt": activation.revoked_at}
    if args.output == "json":
        print_json(told)
        return 0
    print_fields(list(told.items()))
    note(
        f"{access_list.parent} refuses it as soon as Mosquitto reads it again: kill -HUP its process"
        if access_list
        else "The broker must be told: edge fleet broker-config DIR"
    )
    return 0
