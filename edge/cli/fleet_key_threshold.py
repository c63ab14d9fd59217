"""`edge fleet key threshold`."""

import argparse

from edge.cli.key_change import add_common, apply
from edge.cli.session import opened
from edge.fleet.key_changes import requiring
from edge.model.trust import Role

HELP = """\
Say how many keys must sign for a role. With two of three, the loss of one key is survivable and the theft of one is
harmless."""
EXAMPLES = """\
examples:
  edge fleet key threshold root 2
  edge fleet key threshold desired-state 2"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("role", choices=[role.value for role in Role], help="which role")
    parser.add_argument("keys", type=int, metavar="N", help="how many keys")
    add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Require them."""
    with opened(args) as fleet:
        return apply(args, fleet, requiring(Role(args.role), args.keys))
