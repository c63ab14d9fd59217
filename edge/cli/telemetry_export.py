"""`edge telemetry export`."""

import argparse
import csv
import json
import sys

from edge.cli.session import opened
from edge.cli.telemetry_common import add_selection, as_json, telemetry

HELP = """\
Write stored records to stdout: JSON lines, or CSV with one column for the record. Times are set by what is known of
each boot's clock now; a record whose time nobody knows has none, and is left out where --since or --until is given."""
EXAMPLES = """\
examples:
  edge telemetry export --stream metrics --since 2026-11-01T00:00:00Z > metrics.jsonl
  edge telemetry export --format csv --device pi-1 > pi-1.csv"""
_COLUMNS = ("time", "timeIsCertain", "device", "stream", "epoch", "number", "record")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_selection(parser)
    parser.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="default: jsonl")
    parser.add_argument("--since", default="", metavar="TIME", help="not before, RFC 3339 in UTC")
    parser.add_argument("--until", default="", metavar="TIME", help="before")


def run(args: argparse.Namespace) -> int:
    """Export them."""
    with opened(args) as fleet, telemetry(fleet) as store:
        writer = csv.writer(sys.stdout)
        if args.format == "csv":
            writer.writerow(_COLUMNS)
        for record in store.records(
            fleet.settings.cluster,
            device=args.device or "",
            stream=args.stream,
            since=args.since,
            until=args.until,
        ):
            told = as_json(record)
            if args.format == "csv":
                told["record"] = json.dumps(told["record"])
                writer.writerow([told[name] for name in _COLUMNS])
            else:
                sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
    return 0
