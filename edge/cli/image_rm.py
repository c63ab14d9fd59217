"""`edge image rm`."""

import argparse

from edge.cli.image_socket import add_socket
from edge.cli.output import print_json

HELP = "Remove images, and of their layers those that no other image has. Podman's own `rmi` cannot: the store is ours."
EXAMPLES = """\
examples:
  edge image rm registry.example/app:1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", nargs="+", metavar="IMAGE", help="name, id or digest")
    parser.add_argument("--force", action="store_true", help="also one that a task uses")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Remove them."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs

    gone = [ask(args.socket, op="remove", image=image, force=args.force) for image in args.image]
    if args.output == "json":
        print_json(gone)
    else:
        print("\n".join(f"removed {image['imageId'][:12]}" for image in gone))
    return 0
