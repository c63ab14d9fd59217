"""`edge fleet key rotate`."""

import argparse

from edge.cli.fleet_key_add import add_source, make_key
from edge.cli.key_change import add_common, apply
from edge.cli.session import opened
from edge.fleet.key_changes import find_key, rotating

HELP = """\
Put a new key in the place of another, in every role it has, and retire that one: both in one trust bundle."""
EXAMPLES = """\
examples:
  edge fleet key rotate first second
  edge fleet key rotate first second --passphrase"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="which key")
    parser.add_argument("successor", metavar="NEW", help="what to call the new one")
    add_source(parser)
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Rotate it."""
    with opened(args) as fleet:
        find_key({key.name: key for key in fleet.keyring.records()}, args.name)
        key = make_key(args, fleet, args.successor)
        return apply(args, fleet, rotating(args.name, args.successor), [key])
