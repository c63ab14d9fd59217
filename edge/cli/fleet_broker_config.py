"""`edge fleet broker-config`."""

import argparse
from pathlib import Path

from edge.cli.output import note, print_fields, print_json
from edge.cli.session import opened
from edge.fleet.broker_folder import ENROLLMENT_PORT, write_broker_folder
from edge.fleet.clock import now

HELP = """\
Write a folder that Mosquitto can be started with: mosquitto.conf with one TLS listener for devices and one for
operators, an access list that holds each device to its own topics, and the server's certificate. With
--enrollment-port a third one, where an activation's id and code are enough to ask for an identity. Later `edge device
add` keeps the lists in step; tell Mosquitto to read them again with SIGHUP."""
EXAMPLES = """\
examples:
  edge fleet broker-config /etc/mosquitto/edge && mosquitto -c /etc/mosquitto/edge/mosquitto.conf
  edge fleet broker-config /etc/mosquitto/edge --enrollment-port 8885
  edge fleet broker-config ./broker --name broker.example --name 192.0.2.10 --user root"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to write")
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="another host name or address; may be repeated"
    )
    parser.add_argument("--address", default="", metavar="ADDRESS", help="listen only there (default: everywhere)")
    parser.add_argument(
        "--enrollment-port",
        type=int,
        metavar="PORT",
        help=f"listen there for devices that enrol by an activation, {ENROLLMENT_PORT} by custom (default: nowhere)",
    )
    parser.add_argument("--user", default="mosquitto", metavar="USER", help="Mosquitto's account (default: mosquitto)")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="where it logs (default: stderr)")


def run(args: argparse.Namespace) -> int:
    """Write the folder."""
    with opened(args) as fleet:
        config = write_broker_folder(
            fleet,
            args.folder,
            now(),
            names=args.name,
            address=args.address,
            enrollment_port=args.enrollment_port,
            user=args.user,
            log_file=args.log_file.absolute() if args.log_file else None,
        )
    conf = config.acl_file.with_name("mosquitto.conf")
    told = {
        "config": str(conf),
        "acl": str(config.acl_file),
        "devicePort": str(config.device_port),
        "operatorPort": str(config.operator_port),
        "enrollmentPort": str(config.enrollment_port or ""),
    }
    if args.output == "json":
        print_json(told)
        return 0
    print_fields(list(told.items()))
    note(f"next: mosquitto -c {conf}")
    return 0
