"""`edge fleet key ls`."""

import argparse

from edge.cli.output import print_json, print_table
from edge.cli.session import opened
from edge.model.trust import Role

HELP = """\
List the fleet's keys, what each may sign, and where its private half is."""
EXAMPLES = """\
examples:
  edge fleet key ls
  edge fleet key ls --all --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--all", action="store_true", help="the retired ones too")


def run(args: argparse.Namespace) -> int:
    """List."""
    with opened(args) as fleet:
        trusted = fleet.keyring.trusted()
        keys = [key for key in fleet.keyring.records() if args.all or not key.retired_at]
    rows = [(key, [role.value for role in Role if key.key_id in trusted.key_ids(role)]) for key in keys]
    if args.output == "json":
        print_json(
            {
                "trustBundle": trusted.version,
                "thresholds": {role.value: trusted.threshold(role) for role in Role},
                "keys": [
                    {
                        "name": key.name,
                        "keyId": key.key_id,
                        "kind": key.kind.value,
                        "location": key.location,
                        "roles": roles,
                        "addedAt": key.added_at,
                        "retiredAt": key.retired_at,
                    }
                    for key, roles in rows
                ],
            }
        )
        return 0
    print_table(
        ("NAME", "KEY", "HELD BY", "MAY SIGN", "SINCE"),
        [
            (key.name, key.key_id[:12], key.location or key.kind.value, ", ".join(roles) or "-", key.added_at)
            for key, roles in rows
        ],
    )
    return 0
