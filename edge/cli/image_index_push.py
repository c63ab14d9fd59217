"""`edge image index push`."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.cli.image_index import (
    COLUMNS,
    add_options,
    built_json,
    built_rows,
    options_of,
    registry_client,
    show_progress,
)
from edge.cli.image_socket import add_socket
from edge.cli.output import note, print_json, print_table
from edge.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from edge.images.indexing.build import BuiltImage
    from edge.images.indexing.push import Pushed

HELP = """\
Index an image that a registry has, and put the index beside it: read each layer once, build, upload. With --from,
upload what `edge image index build` wrote. A compact or a version 1 index refers to the image, whose digest and
signatures stay; a version 2 index comes with a new image under --tag, of the same layers. With --kept, on a device
that has started the image without an index, upload the index that it made meanwhile: no layer is read again."""
EXAMPLES = """\
examples:
  edge image index push registry.example/app:1
  edge image index push registry.example/app:1 --platform linux/arm64 --index-version v1
  edge image index push registry.example/app:1 --index-version v2 --tag 1-lazy
  edge image index push registry.example/app:1 --from app-index
  edge image index push registry.example/app:1 --kept"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help="registry.example/app:1")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--from", type=Path, dest="layout", metavar="DIR", help="a folder that `edge image index build` wrote"
    )
    source.add_argument(
        "--kept", action="store_true", help="what the image service of this device has made, of unpacked layers"
    )
    add_options(parser)
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Build it if it is not built, and upload it."""
    from edge.images.indexing.build import IndexOptions  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.references import parse_reference  # noqa: PLC0415
    from edge.images.soci.manifests import IndexVersion  # noqa: PLC0415

    options = options_of(args)
    if args.kept and options != IndexOptions.of(IndexVersion.COMPACT):
        raise InvalidInputError(
            "what a device has made is a compact index of whole layers, and nothing else",
            hint="Leave --index-version and the other options out, or leave --kept out.",
        )
    reference, client = parse_reference(args.image), registry_client()
    if args.layout is not None:
        pushed = _upload(args, client, reference, args.layout)
        images: tuple[BuiltImage, ...] = ()
    else:
        with tempfile.TemporaryDirectory(prefix="edge-index-") as folder:
            images = _build(args, client, reference, Path(folder))
            pushed = _upload(args, client, reference, Path(folder))
    _tell(args, images, pushed)
    return 0


def _build(args: argparse.Namespace, client: Any, reference: Any, folder: Path) -> "tuple[BuiltImage, ...]":
    from edge.images.indexing.build import build_indexes  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.layout_writer import LayoutWriter  # noqa: PLC0415

    kept = _kept(args) if args.kept else None
    return build_indexes(client, reference, LayoutWriter(folder), options_of(args), args.tag, show_progress, kept)


def _kept(args: argparse.Namespace) -> dict[str, Path]:
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs

    found = {digest: Path(path) for digest, path in ask(args.socket, op="indexes", image=args.image).items()}
    if not found:
        raise NotFoundError(
            f"the image service has made no index of {args.image}",
            hint="It makes one of an image that had none, once it is unpacked: `edge image pull --wait`.",
        )
    return found


def _upload(args: argparse.Namespace, client: Any, reference: Any, folder: Path) -> "Pushed":
    from edge.images.indexing.push import push_image, push_referring  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.layout import OciLayout  # noqa: PLC0415

    layout = OciLayout.at(folder)
    if args.index_version != "v2":
        return push_referring(client, reference, layout, options_of(args).version)
    return push_image(client, replace(reference, tag=args.tag, digest=""), layout, args.tag)


def _tell(args: argparse.Namespace, images: "tuple[BuiltImage, ...]", pushed: "Pushed") -> None:
    if args.output == "json":
        told = {"version": args.index_version, "indexes": list(pushed.indexes), "otherIndexes": list(pushed.others)}
        print_json(told | ({"image": pushed.image} if pushed.image else {}) | {"images": built_json(images)})
        return
    if images:
        print_table(COLUMNS, built_rows(images))
    for digest in pushed.indexes:
        print(f"pushed index {digest}")
    if pushed.image:
        print(f"pushed image {pushed.image} as {args.tag}")
    if pushed.others:
        note(f"the image has {len(pushed.others)} older indexes of this version too: {', '.join(pushed.others)}")
        note("  hint: which one a device takes is not defined; delete them from the registry.")
