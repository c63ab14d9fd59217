"""`edge image diff`."""

import argparse
from typing import TYPE_CHECKING, Any

from edge.cli.image_index import registry_client
from edge.cli.image_socket import add_socket, size_text
from edge.cli.output import note, print_json, print_table
from edge.errors import InvalidInputError

if TYPE_CHECKING:
    from edge.images.indexing.diff import LayerCost

HELP = """\
Say what an update costs: how many bytes a device that has image A fetches for image B, and how many files have
something new. Both need an index with recipes (`edge image index push`); runs anywhere the registry can be reached.
With one image, on a device: what it would fetch for that one, with what it has of older images of the repository."""
EXAMPLES = """\
examples:
  edge image diff registry.example/app:1 registry.example/app:2
  edge image diff registry.example/app:1 registry.example/app:2 --architecture arm64 --files
  edge image diff registry.example/app:2"""
_COLUMNS = ("LAYER", "SIZE", "HOW", "FETCHED", "FILES", "CHANGED")
_IMAGES = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="the older one and the newer one, or the newer one")
    parser.add_argument("--architecture", default="", metavar="ARCH", help="as OCI names it; default: this host's")
    parser.add_argument("--files", action="store_true", help="list the files that have something new")
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Compare them."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs
    from edge.images.indexing.diff import known_of, read_known, update_cost  # noqa: PLC0415
    from edge.images.oci.documents import host_architecture  # noqa: PLC0415
    from edge.images.oci.references import parse_reference  # noqa: PLC0415

    if len(args.images) > _IMAGES:
        raise InvalidInputError("two images are compared", hint="See `edge image diff --help`.")
    client, newer = registry_client(), parse_reference(args.images[-1])
    platform = f"linux/{args.architecture or host_architecture()}"
    if len(args.images) == _IMAGES:
        known = known_of(client, parse_reference(args.images[0]), platform)
    else:
        here = ask(args.socket, op="older", image=args.images[0])
        known = read_known((one["digest"] for one in here), (one["recipe"] for one in here))
    costs = update_cost(client, newer, platform, known)
    fetched, size = sum(cost.fetched for cost in costs), sum(cost.size for cost in costs)
    if args.output == "json":
        print_json({"fetched": fetched, "size": size, "layers": [_json(cost) for cost in costs]})
        return 0
    print_table(_COLUMNS, [_row(cost) for cost in costs])
    if args.files:
        for name in sorted({name for cost in costs for name in cost.changed}):
            print(name)
    note(f"{size_text(fetched)} of {size_text(size)} are fetched; manifests and configuration come to it")
    return 0


def _row(cost: "LayerCost") -> tuple[str, ...]:
    counts = (str(cost.files), str(len(cost.changed))) if cost.files else ("", "")
    return (cost.digest[7:19], size_text(cost.size), cost.how.value, size_text(cost.fetched), *counts)


def _json(cost: "LayerCost") -> dict[str, Any]:
    return {
        "digest": cost.digest,
        "size": cost.size,
        "how": cost.how.value,
        "fetched": cost.fetched,
        "files": cost.files,
        "changed": list(cost.changed),
    }
