"""`edge fleet enrollment ls`."""

import argparse

from edge.cli.output import print_json, print_table
from edge.cli.session import opened
from edge.fleet.enrollments import State, list_enrollments

HELP = """\
List the devices that ask for their identity and wait for an operator."""
EXAMPLES = """\
examples:
  edge fleet enrollment ls
  edge fleet enrollment ls --all"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--all", action="store_true", help="those that were decided too")


def run(args: argparse.Namespace) -> int:
    """List."""
    with opened(args) as fleet:
        shown = [one for one in list_enrollments(fleet.database) if args.all or one.state is State.PENDING]
    if args.output == "json":
        print_json(
            [
                {
                    "enrollmentId": one.id,
                    "device": one.device,
                    "state": one.state.value,
                    "activationId": one.activation,
                    "keyDigest": one.key_digest,
                    "requestedAt": one.requested_at,
                    "decidedAt": one.decided_at,
                }
                for one in shown
            ]
        )
        return 0
    print_table(
        ("REQUEST", "DEVICE", "STATE", "ACTIVATION", "ASKED"),
        [(one.id[:16], one.device, one.state.value, one.activation, one.requested_at) for one in shown],
    )
    return 0
