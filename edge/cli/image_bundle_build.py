"""`edge image bundle build`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli.image_index import REF_HELP, open_source, show_progress
from edge.cli.image_profile import add_source, profile_for
from edge.cli.image_socket import size_text
from edge.cli.output import note, print_json
from edge.errors import InvalidInputError

if TYPE_CHECKING:
    from edge.images.starts.bundle_build import BuiltBundle

HELP = """\
Build a start bundle: what an image's start reads, packed with zstd, in the order in which it is read, with all that is
needed to start a container from it. Each layer is read once. The bundle is written into an OCI layout, --output-dir;
`edge image bundle push` does this and uploads it in one go."""
EXAMPLES = """\
examples:
  edge image bundle build registry.example/app:1 --profile app.profile --output-dir app-bundle
  edge image bundle build registry.example/app:1 --from-fleet --output-dir app-bundle
  edge image bundle push registry.example/app:1 --from app-bundle"""
_WORTH = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help=REF_HELP)
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where it is written, an OCI layout")
    add_source(parser)


def run(args: argparse.Namespace) -> int:
    """Build it."""
    from edge.images.oci.layout_writer import LayoutWriter  # noqa: PLC0415 - imported when it runs
    from edge.images.starts.bundle_build import build_bundle  # noqa: PLC0415

    source = open_source(args.image)
    folder = args.output_dir or source.folder
    if folder is None:
        raise InvalidInputError("it is not said where to write the bundle", hint="Name a folder with --output-dir.")
    profile = profile_for(args, source)
    built = build_bundle(source.reader, source.reference, LayoutWriter(folder), profile, show_progress)
    tell(args, built, {"outputDir": str(folder)})
    return 0


def tell(args: argparse.Namespace, built: "BuiltBundle", more: dict[str, Any]) -> None:
    """Say what was built, and whether it is worth its bytes."""
    if args.output == "json":
        print_json(
            {
                "platform": built.image.name,
                "manifest": built.image.manifest.digest,
                "bundle": built.entry.digest,
                "size": built.entry.blob.size,
                "startBytes": built.start_bytes,
                "imageBytes": built.image_bytes,
                **more,
            }
        )
        return
    share = f"{built.share:.1%} of the image's {size_text(built.image_bytes)}"
    note(f"{built.image.name}: bundle {built.entry.digest}, {size_text(built.entry.blob.size)}, {share}")
    if built.share > _WORTH:
        note("  hint: the start reads most of the image: without a bundle it is about as fast.")
