"""`edge image profile push`."""

import argparse

from edge.cli.image_index import Source, registry_client
from edge.cli.image_profile import add_source, profile_for
from edge.cli.output import note, print_json

HELP = """\
Put what an image's start reads into the index that the registry has of it, as SOCI's prefetch artifacts: every device
fetches it first then, and so do SOCI's users. The image stays as it is; its index is replaced."""
EXAMPLES = """\
examples:
  edge image profile push registry.example/app:1
  edge image profile push registry.example/app:1 --profile app.profile"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="REF", help="registry.example/app:1")
    add_source(parser)


def run(args: argparse.Namespace) -> int:
    """Push it."""
    from edge.images.oci.references import parse_reference  # noqa: PLC0415 - imported when it runs
    from edge.images.starts.prefetch_push import push_prefetch  # noqa: PLC0415

    reference, client = parse_reference(args.image), registry_client()
    pushed = push_prefetch(client, reference, profile_for(args, Source(client, reference, None)))
    if args.output == "json":
        print_json([{"version": one.version.name.lower(), "index": one.index, "spans": one.spans} for one in pushed])
        return 0
    for one in pushed:
        note(f"pushed {one.version.name.lower()} index {one.index}, which names {one.spans} spans to fetch first")
    return 0
