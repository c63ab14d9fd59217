"""`edge image profile export`."""

import argparse
import sys
from pathlib import Path

from edge.cli.image_profile import own_profile
from edge.cli.image_socket import add_socket
from edge.cli.output import note

HELP = "Write what an image's start reads into a file: for another device, or to build a start bundle from."
EXAMPLES = """\
examples:
  edge image profile export registry.example/app:1 --to app.profile
  edge image bundle push registry.example/app:1 --profile app.profile"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="a reference or an id")
    parser.add_argument("--to", type=Path, metavar="FILE", help="where to; default: stdout")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Write it."""
    from edge.files import write_atomically  # noqa: PLC0415 - imported when it runs

    profile = own_profile(args)
    if args.to is None:
        sys.stdout.write(profile.encode().decode())
        return 0
    write_atomically(args.to, profile.encode(), 0o644)
    note(f"{len(profile.ranges)} ranges of {profile.image}, from {profile.starts} starts, are in {args.to}")
    return 0
