"""`edge secret rm`."""

import argparse

from edge.cli.output import print_fields, print_json
from edge.cli.secret_common import give_anew
from edge.cli.session import opened
from edge.fleet.clock import now
from edge.fleet.secrets import holders, remove_secret

HELP = """\
Forget a secret, here and on the devices. What runs keeps the value it was started with; what starts and names it waits
with the reason."""
EXAMPLES = """\
examples:
  edge secret rm db-password"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="which secret")
    parser.add_argument("--no-publish", action="store_true", help="do not take it from the devices now")


def run(args: argparse.Namespace) -> int:
    """Remove it."""
    with opened(args) as fleet:
        remove_secret(fleet.database, args.name, now())
        devices = holders(fleet.database, args.name)
        revisions = {} if args.no_publish else give_anew(args, fleet, devices)
    if args.output == "json":
        print_json({"name": args.name, "published": revisions})
    else:
        print_fields([("removed", args.name), ("taken from", ", ".join(revisions) or "no device")])
    return 0
