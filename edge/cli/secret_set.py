"""`edge secret set`."""

import argparse
import getpass
import sys
from pathlib import Path

from edge.cli.output import note, print_fields, print_json
from edge.cli.secret_common import give_anew, without_key
from edge.cli.session import opened, read_file
from edge.errors import InvalidInputError
from edge.fleet.clock import now
from edge.fleet.secrets import check_value, holders, set_secret
from edge.model.secrets import check_secret_name

HELP = """\
Give a secret a value: asked for at the terminal, else read from standard input or a file; never an argument, which
every process could see. One newline at its end is cut off. Devices whose tasks name it are given it at once, sealed to
each; a container sees it from its next start on."""
EXAMPLES = """\
examples:
  edge secret set db-password
  openssl rand -hex 24 | edge secret set shop/api-token
  edge secret set tls-key --from-file key.pem"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="as containers name it in secrets[].valueFrom")
    parser.add_argument("--from-file", type=Path, metavar="FILE", help="where the value is")
    parser.add_argument("--no-publish", action="store_true", help="do not give it to the devices now")


def run(args: argparse.Namespace) -> int:
    """Set it."""
    check_secret_name(args.name)
    value = check_value(_value(args))
    with opened(args) as fleet:
        version = set_secret(fleet.database, args.name, value, now())
        devices = holders(fleet.database, args.name)
        revisions = {} if args.no_publish else give_anew(args, fleet, devices)
        waiting = [device.device for device in without_key(fleet, devices)]
    if args.output == "json":
        print_json({"name": args.name, "version": version, "published": revisions, "withoutKey": waiting})
        return 0
    given = ", ".join(name for name in revisions if name not in waiting) or "no device"
    print_fields([("secret", args.name), ("version", str(version)), ("given to", given)])
    for name in waiting:
        note(f"{name} has not told its key yet: `edge fleet publish {name}` once it was connected")
    return 0


def _value(args: argparse.Namespace) -> bytes:
    if args.from_file is not None:
        value = read_file(str(args.from_file))
    elif sys.stdin.isatty():
        value = getpass.getpass(f"Value of {args.name}: ", stream=sys.stderr).encode()
        if getpass.getpass("Once more: ", stream=sys.stderr).encode() != value:
            raise InvalidInputError("the two are not the same")
    else:
        value = read_file("-")
    return value.removesuffix(b"\n").removesuffix(b"\r")
