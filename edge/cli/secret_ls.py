"""`edge secret ls`."""

import argparse

from edge.cli.output import print_json, print_table
from edge.cli.session import add_device_option, opened
from edge.fleet.secrets import SecretRecord, list_secrets

HELP = """\
List the fleet's secrets, and which devices were given them: what must be changed where it is used when a device is
stolen (--device). Values are never shown."""
EXAMPLES = """\
examples:
  edge secret ls
  edge secret ls --device pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """List them."""
    with opened(args) as fleet:
        found = list_secrets(fleet.database)
    if args.device:
        found = [one for one in found if args.device in dict(one.devices)]
    if args.output == "json":
        print_json(
            {
                "secrets": [
                    {"name": one.name, "version": one.version, "setAt": one.set_at, "devices": dict(one.devices)}
                    for one in found
                ]
            }
        )
    else:
        print_table(("NAME", "VERSION", "SET AT", "DEVICES"), [_row(one) for one in found])
    return 0


def _row(secret: SecretRecord) -> tuple[str, ...]:
    told = [
        device if version == secret.version else f"{device} ({f'version {version}' if version else 'not given'})"
        for device, version in secret.devices
    ]
    return secret.name, str(secret.version), secret.set_at, ", ".join(told) or "-"
