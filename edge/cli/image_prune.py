"""`edge image prune`."""

import argparse

from edge.cli.image_socket import add_socket, size_text
from edge.cli.output import print_json

HELP = "Remove the images that no task of this device runs, wants, or may have to go back to."
EXAMPLES = """\
examples:
  edge image prune"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Remove them."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs

    gone = ask(args.socket, op="prune")
    if args.output == "json":
        print_json(gone)
        return 0
    for image in gone:
        print(f"removed {image['names'][0] if image['names'] else image['imageId'][:12]}, {size_text(image['here'])}")
    if not gone:
        print("nothing to remove")
    return 0
