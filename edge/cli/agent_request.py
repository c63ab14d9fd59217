"""`edge agent request`."""

import argparse
from pathlib import Path

from edge.agent.device_key import make_request
from edge.cli.output import note, print_fields, print_json

HELP = """\
On a device: make its key, which never leaves it, and the request for its certificate. Repeated, it keeps the key."""
EXAMPLES = """\
examples:
  edge agent request --device pi-1 /etc/edge          on the device
  edge device add pi-1 --csr device.csr --out pi-1    at the operator's; then copy pi-1/* to /etc/edge"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where device.key and device.csr are written")
    parser.add_argument("--device", required=True, metavar="DEVICE", help="the device's name")


def run(args: argparse.Namespace) -> int:
    """Make them."""
    request = make_request(args.folder, args.device)
    told = {"device": args.device, "key": str(args.folder / "device.key"), "request": str(request)}
    if args.output == "json":
        print_json(told)
        return 0
    print_fields(list(told.items()))
    note(f"next, at the operator's: edge device add {args.device} --csr {request.name} --out {args.device}")
    return 0
