"""`edge image export`."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.cli.image_socket import bar, show_line, size_text
from edge.cli.output import print_json

HELP = """\
Copy an image from its registry into an OCI archive, for devices without a network: `edge image import` takes it from
there. Runs anywhere the registry can be reached; no image service is needed."""
EXAMPLES = """\
examples:
  edge image export registry.example/app:1 --to /media/usb/app.tar
  edge image export registry.example/app:1 --to app.tar --architecture arm64"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="a full reference: registry.example/app:1")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="the archive to write")
    parser.add_argument("--architecture", default="", metavar="ARCH", help="as OCI names it; default: this host's")


def run(args: argparse.Namespace) -> int:
    """Copy it."""
    from edge.images.oci.client import RegistryClient  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.documents import Descriptor, host_architecture  # noqa: PLC0415
    from edge.images.oci.layout_writer import LayoutWriter, write_archive  # noqa: PLC0415
    from edge.images.oci.references import parse_reference  # noqa: PLC0415
    from edge.images.oci.registries import Registries  # noqa: PLC0415

    client = RegistryClient(Registries.of_host(os.environ), os.environ)
    reference = parse_reference(args.image)
    manifest = client.image(reference, args.architecture or host_architecture())
    pinned = reference.at(manifest.digest)
    blobs = {blob.digest: blob for blob in (manifest.config, *manifest.layers)}
    total, done = sum(blob.size for blob in blobs.values()), 0

    def pieces(blob: Descriptor) -> Iterator[bytes]:
        nonlocal done
        for piece in client.chunks(pinned, blob, 0, blob.size):
            done += len(piece)
            show_line(f"exporting {bar({'here': done, 'size': total})}")
            yield piece

    with tempfile.TemporaryDirectory(prefix=".edge-export-", dir=args.to.absolute().parent) as folder:
        layout = LayoutWriter(Path(folder))
        for blob in blobs.values():
            layout.add_pieces(blob, pieces(blob))
        found = layout.add(manifest.data)
        layout.list_manifest(Descriptor(manifest.media_type, found.digest, found.size), str(reference))
        write_archive(layout.folder, args.to)
    show_line("")
    if args.output == "json":
        print_json({"image": str(reference), "digest": manifest.digest, "file": str(args.to), "size": total})
    else:
        sys.stdout.write(f"{reference} is in {args.to}: {size_text(total)}, {manifest.digest}\n")
    return 0
