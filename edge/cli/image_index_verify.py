"""`edge image index verify`."""

import argparse

from edge.cli.image_index import REF_HELP, add_platforms, open_source, show_progress
from edge.cli.image_index_show import version_name
from edge.cli.output import print_json, print_table
from edge.errors import NotFoundError

HELP = """\
Hold each index of an image against the layers: every span is hashed and inflated as a device does it, and compared with
the layer inflated from its beginning; the table of contents is compared with the layer's members. Reads each layer
whole. Exit code 1 when an index says anything that is not so; the layer and the span are named."""
EXAMPLES = """\
examples:
  edge image index verify registry.example/app:1
  edge image index verify oci:app:1-lazy"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help=REF_HELP)
    add_platforms(parser)


def run(args: argparse.Namespace) -> int:
    """Verify all of them."""
    from edge.images.indexing.found import find_indexes  # noqa: PLC0415 - imported when it runs
    from edge.images.indexing.verify import verify_index  # noqa: PLC0415

    source = open_source(args.image)
    images = find_indexes(source.reader, source.reference, tuple(args.platform))
    found = [one for _, indexes in images for one in indexes]
    if not found:
        raise NotFoundError(f"{args.image} has no index", hint=f"Make one: edge image index push {args.image}.")
    findings = [
        (one, finding)
        for one in found
        for finding in verify_index(source.reader, source.reference, one, progress=show_progress)
    ]
    if args.output == "json":
        told = [
            {
                "platform": one.image.name,
                "index": finding.index,
                "layer": finding.layer,
                "span": finding.span,
                "problem": finding.problem,
            }
            for one, finding in findings
        ]
        print_json({"indexes": [one.digest for one in found], "problems": told})
        return int(bool(findings))
    for one in found:
        wrong = [finding for other, finding in findings if other is one]
        print(f"{one.image.name}: {version_name(one)} index {one.digest} is {'WRONG' if wrong else 'right'}")
    rows = [
        (one.image.name, finding.layer[7:19], "" if finding.span is None else str(finding.span), finding.problem)
        for one, finding in findings
    ]
    if rows:
        print_table(("PLATFORM", "LAYER", "SPAN", "PROBLEM"), rows)
    return int(bool(findings))
