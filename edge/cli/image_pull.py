"""`edge image pull`."""

import argparse
import time

from edge.cli.image_socket import COLUMNS, add_socket, bar, row, show_line
from edge.cli.output import print_json, print_table

HELP = """\
Make an image startable on this device. It is fetched on in quiet moments; --wait waits until all of it has arrived and
is unpacked."""
EXAMPLES = """\
examples:
  edge image pull registry.example/app:1
  edge image pull --wait registry.example/app:1"""
_LOOK_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="a full reference: registry.example/app:1")
    parser.add_argument("--architecture", default="", metavar="ARCH", help="as OCI names it; default: this device's")
    parser.add_argument("--wait", action="store_true", help="wait until it is complete and unpacked")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Ask for it, and wait."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.documents import host_architecture  # noqa: PLC0415

    def show(done: int, total: int) -> None:
        show_line(f"index and small layers {bar({'here': done, 'size': total})}")

    architecture = args.architecture or host_architecture()
    image = ask(args.socket, show, op="prepare", image=args.image, architecture=architecture)
    while args.wait and image["state"] != "MATERIALIZED":
        show_line(f"{image['state']} {bar(image)} {image['problem']}")
        time.sleep(_LOOK_SECONDS)
        image = next(one for one in ask(args.socket, op="list") if one["imageId"] == image["imageId"])
    show_line("")
    if args.output == "json":
        print_json(image)
    else:
        print_table(COLUMNS, [row(image)])
    return 0
