"""`edge fleet activation create`."""

import argparse
from datetime import timedelta

from edge.cli.output import note, print_fields, print_json
from edge.cli.session import opened
from edge.fleet.activations import DEFAULT_LIFE, LONGEST_LIFE, MOST_DEVICES, Wish, create_activation
from edge.fleet.broker_folder import enrollment_port, refresh_access_list
from edge.fleet.clock import now
from edge.fleet.folder import Address

HELP = """\
Make an activation: with its id and code a device gets its identity by itself, over MQTT. The code is shown once and
kept nowhere. Mosquitto must read its lists again (SIGHUP) before a device can come, and `edge controller run` answers
it. The fewer devices, the shorter, the better; with --device the code is worth nothing under another name."""
EXAMPLES = """\
examples:
  edge fleet activation create --device pi-7                 for one device of that name, for a day
  edge fleet activation create --limit 20 --hours 8 --device 'shelf-*' --approve
  edge fleet activation create --device pi-1 --force         pi-1 was off past its certificate's end"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    hours, most = int(DEFAULT_LIFE.total_seconds() / 3600), int(LONGEST_LIFE.total_seconds() / 3600)
    parser.add_argument("--limit", type=int, default=1, metavar="N", help=f"how many devices, up to {MOST_DEVICES} (1)")
    parser.add_argument("--hours", type=float, default=hours, metavar="N", help=f"how long, up to {most} ({hours})")
    parser.add_argument("--device", default="", metavar="NAME", help="only for that name, or for a pattern with *")
    parser.add_argument("--approve", action="store_true", help="an operator decides: edge fleet enrollment approve")
    parser.add_argument("--force", action="store_true", help="for a device that is there already; its tasks stay")


def run(args: argparse.Namespace) -> int:
    """Make it."""
    wish = Wish(args.limit, timedelta(hours=args.hours), args.device, args.force, args.approve)
    with opened(args) as fleet:
        activation, code = create_activation(fleet, wish, now())
        access_list = refresh_access_list(fleet, now())
        port = enrollment_port(fleet.database)
        broker = Address(fleet.settings.broker.host, port) if port else None
    told = {
        "activationId": str(activation.id),
        "activationCode": code,
        "expiresAt": activation.expires_at,
        "registrationLimit": activation.limit,
        "device": activation.device,
        "broker": str(broker or ""),
    }
    if args.output == "json":
        print_json(told)
        return 0
    print_fields([(name, str(value)) for name, value in told.items()])
    if broker is None or access_list is None:
        note("The broker has no listener for devices without a certificate: edge fleet broker-config --enrollment-port")
    else:
        note(
            f"{access_list.parent} lets it in as soon as Mosquitto reads it again (SIGHUP). On the device, with ca.crt:"
        )
        note(
            f"edge agent enroll --activation-id {activation.id} --activation-code-file - --broker {broker} --ca ca.crt"
        )
    return 0
