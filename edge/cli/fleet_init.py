"""`edge fleet init`."""

import argparse

from edge.cli.output import note, print_fields, print_json
from edge.fleet.clock import now
from edge.fleet.folder import DEVICE_PORT, OPERATOR_PORT, Address, FleetSettings, init_fleet

HELP = """\
Make a fleet on this machine: a certificate authority, the key that signs what devices run, a trust bundle, the
operator's own certificate, and a database. The folder holds the power over every device: keep a copy of it, and keep
it to yourself."""
EXAMPLES = """\
examples:
  edge fleet init --broker broker.example
  edge fleet init --cluster greenhouse --broker 192.0.2.10:8883 --operator-port 8884 --fleet ./fleet"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--broker", required=True, metavar="HOST[:PORT]", help="where devices find the MQTT broker")
    parser.add_argument("--cluster", default="default", metavar="NAME", help="the cluster's name (default: default)")
    parser.add_argument("--operator-host", metavar="HOST", help="where this machine finds it (default: the same host)")
    parser.add_argument(
        "--operator-port", type=int, default=OPERATOR_PORT, metavar="PORT", help="the operators' listener (8884)"
    )


def run(args: argparse.Namespace) -> int:
    """Make the fleet."""
    broker = Address.parse(args.broker, DEVICE_PORT)
    operator = Address.parse(str(Address(args.operator_host or broker.host, args.operator_port)), OPERATOR_PORT)
    with init_fleet(args.fleet, FleetSettings(args.cluster, broker, operator), now()) as fleet:
        told = {
            "fleet": str(args.fleet),
            "cluster": args.cluster,
            "broker": str(broker),
            "operator": str(operator),
            "signingKeyId": fleet.keyring.records()[0].key_id,
        }
    if args.output == "json":
        print_json(told)
        return 0
    print_fields(list(told.items()))
    note("next: edge fleet broker-config DIR, then edge device add NAME")
    return 0
