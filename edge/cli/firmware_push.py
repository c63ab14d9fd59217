"""`edge firmware push`."""

import argparse
import json
from pathlib import Path

from edge.cli.output import print_fields, print_json
from edge.errors import InvalidInputError
from edge.files import store_error

HELP = """\
Put a bundle into a registry as an OCI artifact, for `edge device update`. The registry is not believed: the command to
the device names the bundle's digest, and the bundle is signed."""
EXAMPLES = """\
examples:
  edge firmware push edge-0.2.0-arm64.bundle registry.example/edge/runtime:0.2.0-arm64"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bundle", type=Path, metavar="FILE", help="what `edge firmware bundle` made")
    parser.add_argument("reference", metavar="REF", help="registry.example/edge/runtime:0.2.0-arm64")


def run(args: argparse.Namespace) -> int:
    """Upload it."""
    from edge.cli.image_index import registry_client  # noqa: PLC0415 - imported when it runs
    from edge.firmware.bundle_file import BUNDLE_MEDIA_TYPE, MANIFEST_NAME  # noqa: PLC0415
    from edge.images.oci.documents import OCI_MANIFEST  # noqa: PLC0415
    from edge.images.oci.references import parse_reference  # noqa: PLC0415

    reference = parse_reference(args.reference)
    if not reference.tag:
        raise InvalidInputError("a bundle is pushed under a tag", hint="registry.example/edge/runtime:0.2.0-arm64")
    try:
        data = args.bundle.read_bytes()
    except OSError as error:
        raise store_error(f"cannot read {args.bundle}", error) from error
    if MANIFEST_NAME.encode() not in data[:100]:
        raise InvalidInputError(f"{args.bundle} is no runtime bundle", hint="`edge firmware bundle` makes one.")
    client = registry_client()
    try:
        layer, config = client.push_blob(reference, data), client.push_blob(reference, b"{}")
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": BUNDLE_MEDIA_TYPE,
            # The empty configuration of the image specification 1.1.
            "config": {
                "mediaType": "application/vnd.oci.empty.v1+json",
                "digest": config.digest,
                "size": config.size,
            },
            "layers": [{"mediaType": BUNDLE_MEDIA_TYPE, "digest": layer.digest, "size": layer.size}],
        }
        client.push_manifest(reference, json.dumps(document, separators=(",", ":")).encode(), OCI_MANIFEST)
    finally:
        client.close()
    told = {"url": reference.name, "digest": layer.digest, "size": layer.size}
    if args.output == "json":
        print_json({"reference": str(reference), "ref": told})
    else:
        print_fields([("pushed", str(reference)), ("bundle", layer.digest), ("bytes", str(layer.size))])
    return 0
