"""`edge telemetry tail`."""

import argparse
import json
import time
from collections import deque

from edge.cli.output import clean, print_json_line
from edge.cli.session import opened
from edge.cli.telemetry_common import add_selection, as_json, telemetry
from edge.fleet.telemetry_store import StoredRecord

HELP = "Show the newest records that `edge telemetry collect` has stored, and follow what comes."
EXAMPLES = """\
examples:
  edge telemetry tail --device pi-1 --stream metrics
  edge telemetry tail -f --stream readings --output json"""
_LOOK_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection(parser)
    parser.add_argument("-n", type=int, default=20, dest="count", metavar="N", help="begin with the last N (20)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    """Show them."""
    with opened(args) as fleet, telemetry(fleet) as store:
        cluster, device = fleet.settings.cluster, args.device or ""
        newest = store.newest()
        last = deque(store.records(cluster, device=device, stream=args.stream), maxlen=max(0, args.count))
        for record in last:
            _show(args, record)
        while args.follow:
            time.sleep(_LOOK_SECONDS)
            after, newest = newest, store.newest()
            for record in store.records(cluster, device=device, stream=args.stream, after=after):
                _show(args, record)
    return 0


def _show(args: argparse.Namespace, record: StoredRecord) -> None:
    if args.output == "json":
        print_json_line(as_json(record))
        return
    when = record.time or f"boot+{record.body.get('t', '?')}ms"
    doubt = "" if record.certain else "?"
    body = {name: value for name, value in record.body.items() if name != "t"}
    print(clean(f"{when}{doubt} {record.device} {record.stream} {json.dumps(body, ensure_ascii=False)}"), flush=True)
