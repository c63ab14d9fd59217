"""`edge image index show`."""

import argparse
from typing import TYPE_CHECKING, Any

from edge.cli.image_index import REF_HELP, add_platforms, open_source
from edge.cli.image_socket import size_text
from edge.cli.output import note, print_json, print_table
from edge.errors import NotFoundError

if TYPE_CHECKING:
    from edge.images.indexing.found import FoundIndex, LayerSummary

HELP = """\
Show the indexes an image has, as a device finds them: version, build tool, and for each layer the zTOC, its spans and
the largest of them. LARGEST is compressed: the most that one read may wait for."""
EXAMPLES = """\
examples:
  edge image index show registry.example/app:1
  edge image index show oci:app:1-lazy --platform linux/arm64 --output json"""
_COLUMNS = ("PLATFORM", "VERSION", "LAYER", "SIZE", "UNPACKED", "ZTOC", "SPAN SIZE", "SPANS", "LARGEST", "FILES")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help=REF_HELP)
    add_platforms(parser)


def run(args: argparse.Namespace) -> int:
    """Find and show them."""
    from edge.images.indexing.found import find_indexes, summarize  # noqa: PLC0415 - imported when it runs

    source = open_source(args.image)
    images = find_indexes(source.reader, source.reference, tuple(args.platform))
    found = [one for _, indexes in images for one in indexes]
    if not found:
        raise NotFoundError(f"{args.image} has no index", hint=f"Make one: edge image index push {args.image}.")
    layers = [summarize(source.reader, source.reference, one) if one.index is not None else () for one in found]
    if args.output == "json":
        print_json([_json(one, rows) for one, rows in zip(found, layers, strict=True)])
        return 0
    print_table(_COLUMNS, [_row(one, layer) for one, rows in zip(found, layers, strict=True) for layer in rows])
    for one in found:
        note(_line(one))
    return 0


def version_name(found: "FoundIndex") -> str:
    """Return `v1` or `v2`."""
    return found.version.name.lower()


def _line(found: "FoundIndex") -> str:
    from edge.images.indexing.found import build_tool  # noqa: PLC0415 - imported when it runs

    what = f"{found.image.name}: {version_name(found)} index {found.digest}"
    if found.index is None:
        return f"{what} cannot be used: {found.problem}"
    return f"{what}, built by {build_tool(found.index) or 'nobody named'}"


def _row(found: "FoundIndex", layer: "LayerSummary") -> tuple[str, ...]:
    head = (found.image.name, version_name(found), layer.layer.digest[7:19], size_text(layer.layer.size))
    if layer.ztoc is None:
        return (*head, "", "not indexed", "", "", "", "")
    span_size = size_text(layer.ztoc.span_size) if layer.ztoc.span_size is not None else ""
    return (
        *head,
        size_text(layer.uncompressed_size),
        size_text(layer.ztoc.blob.size),
        span_size,
        str(layer.spans),
        size_text(layer.largest_span),
        str(layer.files),
    )


def _json(found: "FoundIndex", layers: "tuple[LayerSummary, ...]") -> dict[str, Any]:
    from edge.images.indexing.found import build_tool  # noqa: PLC0415 - imported when it runs

    return {
        "platform": found.image.name,
        "manifest": found.image.manifest.digest,
        "version": version_name(found),
        "digest": found.digest,
        "problem": found.problem,
        "buildTool": build_tool(found.index) if found.index is not None else "",
        "layers": [_layer_json(layer) for layer in layers],
    }


def _layer_json(layer: "LayerSummary") -> dict[str, Any]:
    head: dict[str, Any] = {"digest": layer.layer.digest, "size": layer.layer.size}
    if layer.ztoc is None:
        return head | {"ztoc": None}
    return head | {
        "ztoc": {"digest": layer.ztoc.blob.digest, "size": layer.ztoc.blob.size},
        "spanSize": layer.ztoc.span_size,
        "spans": layer.spans,
        "largestSpan": layer.largest_span,
        "files": layer.files,
        "uncompressedSize": layer.uncompressed_size,
        "disableXattrs": layer.ztoc.disable_xattrs,
    }
