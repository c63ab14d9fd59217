"""`edge device add`."""

import argparse
from pathlib import Path

from edge.cli.output import note, print_fields, print_json
from edge.cli.session import opened, read_file
from edge.fleet.broker_folder import refresh_access_list
from edge.fleet.clock import now
from edge.fleet.identities import add_device

HELP = """\
Make a device's identity: a folder with its certificate and key, the fleet's CA, the trust bundle and an agent.toml.
Hand the folder over by a way you trust (scp, the SD card) and start `edge agent run --config agent.toml` in it."""
EXAMPLES = """\
examples:
  edge device add pi-1
  edge device add pi-1 --out /media/boot/edge
  edge device add pi-1 --csr pi-1.csr           the key stays on the device
  edge device add pi-1 --force      a new certificate for a device that is there already; its tasks stay"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("device", metavar="DEVICE", help="its name: lower-case letters, digits and '-'")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: in the fleet's folder)")
    parser.add_argument(
        "--csr", metavar="FILE", help="the request that `edge agent request` wrote on the device, which keeps its key"
    )
    parser.add_argument("--force", action="store_true", help="replace an identity that is there already")


def run(args: argparse.Namespace) -> int:
    """Make the identity."""
    with opened(args) as fleet:
        folder = args.out or fleet.folder.device(fleet.settings.cluster, args.device)
        request = read_file(args.csr) if args.csr else None
        record = add_device(fleet, args.device, folder, now(), force=args.force, request=request)
        access_list = refresh_access_list(fleet, now())
    told = {
        "device": record.device,
        "cluster": record.cluster,
        "folder": str(folder),
        "certificateExpiresAt": record.certificate_expires_at,
    }
    if args.output == "json":
        print_json(told)
        return 0
    print_fields(list(told.items()))
    if access_list is None:
        note("The broker must let it in: edge fleet broker-config DIR")
    else:
        note(f"{access_list} lets it in as soon as Mosquitto reads it again (SIGHUP)")
    return 0
