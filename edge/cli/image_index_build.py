"""`edge image index build`."""

import argparse
from pathlib import Path

from edge.cli.image_index import (
    COLUMNS,
    REF_HELP,
    add_options,
    built_json,
    built_rows,
    open_source,
    options_of,
    show_progress,
)
from edge.cli.output import note, print_json, print_table
from edge.errors import InvalidInputError

HELP = """\
Index an image's layers, so that devices start it before it has arrived. Each layer is read once. The index is written
into an OCI layout: --output-dir, or for oci:DIR the image's own folder. `edge image index push` does this and uploads
the index in one go; build alone is for looking at an index first, or for carrying it elsewhere (push --from)."""
EXAMPLES = """\
examples:
  edge image index build registry.example/app:1 --output-dir app-index
  edge image index push registry.example/app:1 --from app-index
  edge image index build oci:app:1 --index-version v2 --tag 1-lazy
  skopeo copy --all oci:app:1-lazy docker://registry.example/app:1-lazy"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help=REF_HELP)
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="where the index is written, an OCI layout")
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Build it."""
    from edge.images.indexing.build import build_indexes  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.layout_writer import LayoutWriter  # noqa: PLC0415

    options = options_of(args)
    source = open_source(args.image)
    folder = args.output_dir or source.folder
    if folder is None:
        raise InvalidInputError("it is not said where to write the index", hint="Name a folder with --output-dir.")
    images = build_indexes(
        source.reader, source.reference, LayoutWriter(folder), options, args.tag, progress=show_progress
    )
    if args.output == "json":
        print_json({"version": args.index_version, "outputDir": str(folder), "images": built_json(images)})
        return 0
    print_table(COLUMNS, built_rows(images))
    for image in images:
        note(f"{image.platform}: index {image.index_digest or 'none'} in {folder}")
    return 0
