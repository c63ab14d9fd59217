"""`edge image bundle show`."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from edge.cli.image_index import REF_HELP, Source, add_platforms, open_source
from edge.cli.image_socket import size_text
from edge.cli.output import note, print_json, print_table
from edge.errors import EdgeError, NotFoundError

HELP = "Show the start bundles an image has, as a device finds them; the newest is the one that counts."
EXAMPLES = """\
examples:
  edge image bundle show registry.example/app:1"""

if TYPE_CHECKING:
    from edge.images.oci.documents import Descriptor

_COLUMNS = ("PLATFORM", "BUNDLE", "SIZE", "START READS", "IMAGE", "CREATED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help=REF_HELP)
    add_platforms(parser)


def run(args: argparse.Namespace) -> int:
    """Find and show them."""
    from edge.images.indexing.platforms import platform_images  # noqa: PLC0415 - imported when it runs
    from edge.images.starts.artifact import find_bundles  # noqa: PLC0415
    from edge.images.starts.bundle import ARTIFACT_TYPE, START_BYTES, entry_of  # noqa: PLC0415

    source = open_source(args.image)
    told, rows, problems = list[dict[str, object]](), list[tuple[str, ...]](), list[str]()
    for image in platform_images(source.reader, source.reference, tuple(args.platform)):
        size = sum(layer.size for layer in image.manifest.layers)
        pinned = source.reference.at(image.manifest.digest)
        for found in find_bundles(source.reader.referrers(pinned, image.manifest.digest, ARTIFACT_TYPE)):
            try:
                # In a layout only the manifest itself says it.
                noted = found if found.annotations.get(START_BYTES) else _noted(source, found)
                entry = entry_of(noted)
            except EdgeError as error:
                problems.append(f"{image.name}: bundle {found.digest} cannot be used: {error}")
                continue
            start = int(noted.annotations.get(START_BYTES, "0"))
            told.append(
                {
                    "platform": image.name,
                    "manifest": image.manifest.digest,
                    "bundle": found.digest,
                    "size": entry.blob.size,
                    "startBytes": start,
                    "imageBytes": size,
                    "created": entry.created,
                }
            )
            texts = (size_text(entry.blob.size), size_text(start), size_text(size), entry.created)
            rows.append((image.name, found.digest[7:19], *texts))
    if not rows and not problems:
        raise NotFoundError(f"{args.image} has no start bundle", hint="Make one: edge image bundle push.")
    if args.output == "json":
        print_json(told)
    else:
        print_table(_COLUMNS, rows)
    for problem in problems:
        note(problem)
    return 0


def _noted(source: Source, found: "Descriptor") -> "Descriptor":
    document = source.reader.manifest(source.reference.at(found.digest))
    return replace(found, annotations=dict(getattr(document, "annotations", {})))
