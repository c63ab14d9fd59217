"""`edge image profile import`."""

import argparse
from pathlib import Path

from edge.cli.image_profile import read_profile_file
from edge.cli.image_socket import add_socket
from edge.cli.output import note

HELP = """\
Let this device fetch first what a start read elsewhere: at the image's next start here, or its next version's. A
profile for another platform is refused."""
EXAMPLES = """\
examples:
  edge image profile import app.profile"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="what `edge image profile export` wrote")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Give it to the image service."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs

    profile = read_profile_file(args.file)
    ask(args.socket, op="takeProfile", profile=profile.to_json())
    note(f"{len(profile.ranges)} ranges of {profile.image} are fetched first at its next start")
    return 0
