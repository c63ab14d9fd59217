"""`edge device update`."""

import argparse
from typing import Any

from edge.cli.output import print_fields, print_json, progress
from edge.cli.session import add_device_option, connected, opened
from edge.errors import InvalidInputError
from edge.fleet.clock import now
from edge.fleet.commands import await_result, compose_command, send
from edge.fleet.devices import the_device
from edge.model.documents import Operation
from edge.model.trust import Role

HELP = """\
Let a device take another version of edge, and wait until the new agent has proved itself there, or the old one is
back. The device fetches the bundle by itself; its containers go on all the while."""
EXAMPLES = """\
examples:
  edge device update registry.example/edge/runtime:0.2.0-arm64 --device pi-1
  edge device update --file /var/lib/edge/edge-0.2.0-arm64.bundle --device pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("reference", nargs="?", metavar="REF", help="a bundle that `edge firmware push` put there")
    parser.add_argument("--file", metavar="PATH", help="instead: a bundle that lies on the device")
    add_device_option(parser)
    parser.add_argument(
        "--window", type=int, default=180, metavar="SECONDS", help="until the new agent must be well (180)"
    )
    parser.add_argument("--timeout", type=int, default=1800, metavar="SECONDS", help="how long it may take (1800)")


def run(args: argparse.Namespace) -> int:
    """Send it, and wait for the end."""
    if (args.reference is None) == (args.file is None):
        raise InvalidInputError("name either a bundle in a registry or a file on the device")
    source: dict[str, Any] = {"file": args.file} if args.file else {"ref": _resolve(args.reference)}
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        command = compose_command(
            device,
            Operation.UPDATE_AGENT,
            {**source, "windowSeconds": args.window},
            fleet.signers(Role.COMMAND),
            now(),
            lifetime_seconds=args.timeout,
        )
        with connected(args, fleet) as link, progress(f"{device.device} updates edge"):
            send(link, command)
            result = await_result(link, command)
    if args.output == "json":
        print_json(result.result)
    else:
        print_fields([(name, str(result.result.get(name, ""))) for name in ("outcome", "version", "previous")])
    return 0


def _resolve(text: str) -> dict[str, Any]:
    """Ask the registry which bytes the tag means now; the device is told their digest."""
    from edge.cli.image_index import registry_client  # noqa: PLC0415 - imported when it runs
    from edge.images.oci.documents import Manifest  # noqa: PLC0415
    from edge.images.oci.references import parse_reference  # noqa: PLC0415

    reference = parse_reference(text)
    client = registry_client()
    try:
        manifest = client.manifest(reference)
    finally:
        client.close()
    if not isinstance(manifest, Manifest) or len(manifest.layers) != 1:
        raise InvalidInputError(f"{text} is no runtime bundle", hint="`edge firmware push` puts one there.")
    layer = manifest.layers[0]
    return {"url": reference.name, "digest": layer.digest, "size": layer.size}
