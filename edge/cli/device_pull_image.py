"""`edge device pull-image`."""

import argparse

from edge.cli.output import print_fields, print_json, progress
from edge.cli.session import add_device_option, connected, opened
from edge.cli.views import text_of
from edge.fleet.clock import now
from edge.fleet.commands import await_result, compose_command, send
from edge.fleet.devices import the_device
from edge.model.documents import Operation
from edge.model.trust import Role

HELP = "Let a device fetch an image now, so that a later start needs no network."
EXAMPLES = """\
examples:
  edge device pull-image registry.example/sensor:1.2 --device pi-1
  edge device pull-image registry.example/numpy-app@sha256:… --device pi-1 --timeout 3600"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("image", metavar="IMAGE", help="as in a task definition")
    add_device_option(parser)
    parser.add_argument("--timeout", type=int, default=900, metavar="SECONDS", help="how long it may take (900)")


def run(args: argparse.Namespace) -> int:
    """Let it fetch the image, and wait."""
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        command = compose_command(
            device,
            Operation.PULL_IMAGE,
            {"image": args.image},
            fleet.signers(Role.COMMAND),
            now(),
            lifetime_seconds=args.timeout,
        )
        with connected(args, fleet) as link, progress(f"{device.device} fetches {args.image}"):
            send(link, command)
            result = await_result(link, command)
    if args.output == "json":
        print_json(result.result)
        return 0
    image = result.result.get("image")
    found = image if isinstance(image, dict) else {}
    print_fields([(name, text_of(found, name)) for name in ("reference", "imageId", "digest", "architecture")])
    return 0
