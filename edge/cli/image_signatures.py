"""`edge image signatures`."""

import argparse
import sys

from edge.cli.image_index import registry_client
from edge.cli.output import print_json, print_table

HELP = """\
Show what the registry has of an image's signatures: the tag sha256-….sig, and referrers. Nothing is verified;
`edge image verify` does that. --evidence writes all of it as one JSON document, which an agent keeps with the image."""
EXAMPLES = """\
examples:
  edge image signatures registry.example/app:1"""
_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="a full reference: registry.example/app:1")
    parser.add_argument("--architecture", default="", metavar="ARCH", help="as OCI names it; default: this machine's")
    parser.add_argument("--evidence", action="store_true", help="write all that was found, for a program")
    parser.add_argument(
        "--seconds", type=float, default=_SECONDS, metavar="S", help="for all of it (default: %(default)g)"
    )


def run(args: argparse.Namespace) -> int:
    """Fetch and show it."""
    from edge.images.oci.documents import host_architecture  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.references import parse_reference  # noqa: PLC0415
    from edge.images.signatures import gather  # noqa: PLC0415

    reference = parse_reference(args.image)
    found = gather(registry_client(), reference, args.architecture or host_architecture(), args.seconds)
    if args.evidence:
        sys.stdout.write(found.to_bytes().decode())
        return 0
    told = [
        {
            "payload": one.payload.decode("utf-8", "replace"),
            "certificate": bool(one.certificate),
            "logEntry": bool(one.log_entry),
        }
        for one in found.signatures
    ]
    if args.output == "json":
        print_json({"manifest": found.digests[0], "signatures": told, "leftOut": found.left_out})
        return 0
    print(f"{found.digests[0]}: {len(told)} signatures, {found.left_out} left out")
    if told:
        rows = [
            (str(one["payload"])[:120], "yes" if one["certificate"] else "no", "yes" if one["logEntry"] else "no")
            for one in told
        ]
        print_table(("PAYLOAD", "CERTIFICATE", "LOG"), rows)
    return 0
