"""`edge image profile show`."""

import argparse

from edge.cli.image_profile import COLUMNS, own_profile, row
from edge.cli.image_socket import add_socket
from edge.cli.output import clean, print_json, print_table

HELP = """\
Show what this device knows of what images read when they start. With an image: each range, in the order in which it
is fetched at the next start."""
EXAMPLES = """\
examples:
  edge image profile show
  edge image profile show registry.example/app:1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", nargs="?", default="", help="a reference or an id; default: all")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs
    from edge.model.start_profile import profile_of  # noqa: PLC0415

    if args.image:
        profile = own_profile(args)
        if args.output == "json":
            print_json(profile.to_json())
        else:
            print_table(COLUMNS, [row(profile)])
            ranges = [(str(one.start), str(one.end), str(one.age), clean(one.path)) for one in profile.ranges]
            print_table(("START", "END", "AGE", "FILE"), ranges)
        return 0
    found = ask(args.socket, op="profiles")
    if args.output == "json":
        print_json(found)
    else:
        print_table(COLUMNS, [row(profile_of(one)) for one in found])
    return 0
