"""`edge image import`."""

import argparse
from pathlib import Path

from edge.cli.image_socket import COLUMNS, add_socket, bar, row, show_line
from edge.cli.output import print_json, print_table
from edge.errors import InvalidInputError

HELP = """\
Take an image from an OCI archive or layout, as `edge image export` and `skopeo copy … oci-archive:FILE` write them,
from a USB stick for example. No registry is asked; tasks that name the image find it here."""
EXAMPLES = """\
examples:
  edge image import /media/usb/app.tar
  edge image import /media/usb/app.tar --name registry.example/app:1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an OCI archive, or the folder of an OCI layout")
    parser.add_argument("--tag", default="", metavar="TAG", help="which of its images, where there are several")
    parser.add_argument("--name", default="", metavar="REF", help="the image's full reference; default: as it says")
    parser.add_argument("--architecture", default="", metavar="ARCH", help="as OCI names it; default: this device's")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Take it."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.documents import host_architecture  # noqa: PLC0415

    def show(done: int, total: int) -> None:
        show_line(f"importing {bar({'here': done, 'size': total})}")

    name = args.name or _own_name(args.file, args.tag)
    asked = {"path": str(args.file.absolute()), "tag": args.tag, "name": name}
    image = ask(args.socket, show, op="import", architecture=args.architecture or host_architecture(), **asked)
    show_line("")
    if args.output == "json":
        print_json(image)
    else:
        print_table(COLUMNS, [row(image)])
    return 0


def _own_name(file: Path, tag: str) -> str:
    """Return the full reference that the archive gives its image.

    Raises:
        InvalidInputError: It gives none.
    """
    from edge.images.oci.layout import REFERENCE_NAME, OciLayout  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.references import parse_reference  # noqa: PLC0415

    named = [entry.annotations.get(REFERENCE_NAME, "") for entry in OciLayout.at(file).entries()]
    fitting = [name for name in named if not tag or name == tag]
    try:
        return str(parse_reference(fitting[0] if len(fitting) == 1 else ""))
    except InvalidInputError as error:
        told = ", ".join(filter(None, named)) or "none"
        raise InvalidInputError(
            f"{file} does not say which image of which registry it is (its names: {told})",
            hint="Give the full reference: --name registry.example/app:1.",
        ) from error
