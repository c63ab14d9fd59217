"""`edge image ls`."""

import argparse

from edge.cli.image_socket import COLUMNS, add_socket, row
from edge.cli.output import print_json, print_table

HELP = "List the images of this device that the image service has, and how much of each has arrived."
EXAMPLES = """\
examples:
  edge image ls
  edge image ls --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """List them."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs

    images = ask(args.socket, op="list")
    if args.output == "json":
        print_json(images)
    else:
        print_table(COLUMNS, [row(image) for image in images])
    return 0
