"""`edge agent enroll`."""

import argparse
from pathlib import Path

from edge.agent.enrolling import enroll
from edge.agent.enrolling_request import Wish
from edge.cli.output import note, print_fields, print_json
from edge.cli.session import read_file
from edge.errors import InvalidInputError
from edge.fleet.broker_folder import ENROLLMENT_PORT
from edge.fleet.folder import Address
from edge.fleet.link import paho_broker
from edge.model.enrollment import ActivationId, check_code

HELP = """\
On a device: make its key, which never leaves it, and get its identity from the fleet by an activation's id and code,
over MQTT. The code does not travel. Writes device.key, device.crt, ca.crt, trust.json and agent.toml. Repeated after
whatever broke it off, it goes on; with an identity in place that has not ended it does nothing."""
EXAMPLES = """\
examples:
  edge agent enroll --activation-id shop.0123456789abcdef --activation-code-file code --broker mqtt.example --ca ca.crt
  edge agent enroll … --device pi-7 ./device    another name than the host's, another folder than /etc/edge"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, nargs="?", default=Path("/etc/edge"), metavar="DIR", help="(/etc/edge)")
    parser.add_argument("--activation-id", required=True, metavar="ID", help="which activation")
    code = parser.add_mutually_exclusive_group(required=True)
    code.add_argument("--activation-code-file", metavar="FILE", help="a file that has its code; - for stdin")
    code.add_argument("--activation-code", metavar="CODE", help="the code itself; who lists processes here sees it")
    parser.add_argument(
        "--broker",
        required=True,
        metavar="HOST[:PORT]",
        help=f"the broker's listener for this (port {ENROLLMENT_PORT})",
    )
    parser.add_argument("--ca", required=True, type=Path, metavar="FILE", help="who signed the broker's certificate")
    parser.add_argument("--device", default="", metavar="NAME", help="the device's name (default: the host's)")
    parser.add_argument("--force", action="store_true", help="get a new identity though there is a good one")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="how long to try (120)")


def run(args: argparse.Namespace) -> int:
    """Enrol."""
    address = Address.parse(args.broker, ENROLLMENT_PORT)
    if not args.ca.is_file():
        raise InvalidInputError(f"there is no file {args.ca}", hint="It is the fleet's ca.crt.")
    wish = Wish(
        activation=ActivationId.parse(args.activation_id),
        code=_code(args),
        host=address.host,
        port=address.port,
        ca_file=args.ca,
        device=args.device,
        force=args.force,
        seconds=args.timeout,
    )
    enrolled = enroll(args.folder, wish, args.brokers or paho_broker, note)
    told = {
        "status": "enrolled" if enrolled.asked else "already enrolled",
        "device": enrolled.held.device,
        "cluster": enrolled.held.cluster,
        "folder": str(args.folder),
        "certificateExpiresAt": enrolled.held.ends.isoformat(),
    }
    if args.output == "json":
        print_json(told)
        return 0
    print_fields(list(told.items()))
    if enrolled.asked:
        note(f"next: edge agent run --config {args.folder / 'agent.toml'}")
    return 0


def _code(args: argparse.Namespace) -> str:
    if args.activation_code is not None:
        return check_code(args.activation_code)
    try:
        return check_code(read_file(args.activation_code_file).decode())
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{args.activation_code_file} holds no activation code") from error
