"""`edge image bundle push`."""

import argparse
import tempfile
from pathlib import Path

from edge.cli.image_bundle_build import tell
from edge.cli.image_index import Source, registry_client, show_progress
from edge.cli.image_profile import add_source, profile_for
from edge.cli.output import note, print_json

HELP = """\
Build a start bundle of an image that a registry has, and put it beside the image, whose digest and signatures stay.
With --from, upload what `edge image bundle build` wrote. Devices take the bundle first, start from it, and fetch the
rest."""
EXAMPLES = """\
examples:
  edge image bundle push registry.example/app:1 --profile app.profile
  edge image bundle push registry.example/app:1 --from-fleet
  edge image bundle push registry.example/app:1 --from app-bundle"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help="registry.example/app:1")
    parser.add_argument(
        "--from", type=Path, dest="layout", metavar="DIR", help="a folder that `edge image bundle build` wrote"
    )
    add_source(parser)


def run(args: argparse.Namespace) -> int:
    """Build it if it is not built, and upload it."""
    from edge.images.oci.layout import OciLayout  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.layout_writer import LayoutWriter  # noqa: PLC0415
    from edge.images.oci.references import parse_reference  # noqa: PLC0415
    from edge.images.starts.artifact import push_bundle  # noqa: PLC0415
    from edge.images.starts.bundle_build import build_bundle  # noqa: PLC0415

    reference, client = parse_reference(args.image), registry_client()
    if args.layout is not None:
        pushed = push_bundle(client, reference, OciLayout.at(args.layout))
        if args.output == "json":
            print_json([{"bundle": one.digest, "size": one.blob.size} for one in pushed])
        for one in pushed:
            note(f"pushed bundle {one.digest}")
        return 0
    profile = profile_for(args, Source(client, reference, None))
    with tempfile.TemporaryDirectory(prefix="edge-bundle-") as folder:
        built = build_bundle(client, reference, LayoutWriter(Path(folder)), profile, show_progress)
        push_bundle(client, reference, OciLayout.at(Path(folder)))
    tell(args, built, {})
    return 0
