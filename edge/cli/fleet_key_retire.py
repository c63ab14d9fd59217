"""`edge fleet key retire`."""

import argparse

from edge.cli.key_change import add_common, apply
from edge.cli.session import opened
from edge.fleet.key_changes import retiring

HELP = """\
Take a key out of every role, because it was lost or stolen or is not used. What it signed before stays in force on the
devices until a newer revision comes; every device is given one at once."""
EXAMPLES = """\
examples:
  edge fleet key retire backup"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="which key")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Retire it."""
    with opened(args) as fleet:
        return apply(args, fleet, retiring(args.name))
