"""`edge fleet activation ls`."""

import argparse

from edge.cli.output import print_json, print_table
from edge.cli.session import opened
from edge.fleet.activations import list_activations
from edge.fleet.clock import now

HELP = """\
List the activations by which devices can enrol now, and how many have."""
EXAMPLES = """\
examples:
  edge fleet activation ls
  edge fleet activation ls --all --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--all", action="store_true", help="those that are over, used up or revoked too")


def run(args: argparse.Namespace) -> int:
    """List."""
    with opened(args) as fleet:
        moment = now()
        found = [(one, one.state(moment)) for one in list_activations(fleet.database)]
    shown = [(one, state) for one, state in found if args.all or state == "ACTIVE"]
    if args.output == "json":
        print_json(
            [
                {
                    "activationId": str(one.id),
                    "state": state,
                    "device": one.device,
                    "registrationsCount": one.registered,
                    "registrationLimit": one.limit,
                    "approval": one.approval,
                    "replaces": one.replaces,
                    "createdAt": one.created_at,
                    "expiresAt": one.expires_at,
                    "revokedAt": one.revoked_at,
                }
                for one, state in shown
            ]
        )
        return 0
    print_table(
        ("ACTIVATION", "STATE", "DEVICES", "FOR", "APPROVAL", "UNTIL"),
        [
            (
                str(one.id),
                state,
                f"{one.registered}/{one.limit}",
                one.device or "any",
                "yes" if one.approval else "no",
                one.expires_at,
            )
            for one, state in shown
        ],
    )
    return 0
