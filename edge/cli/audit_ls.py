"""`edge audit ls`."""

import argparse
from typing import Any

from edge.cli.output import print_json, print_table
from edge.cli.session import add_device_option, opened
from edge.cli.telemetry_common import as_json, telemetry
from edge.fleet.telemetry_store import StoredRecord
from edge.model.records import AUDIT

HELP = """\
Show what was asked of devices, by whom, and what came of it, as `edge telemetry collect` has stored it. A time with a
question mark is by a clock that nobody had set."""
EXAMPLES = """\
examples:
  edge audit ls --device pi-1
  edge audit ls --what command --output json"""
_PLAIN = frozenset({"t", "chain", "n", "prev", "what", "outcome"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)
    parser.add_argument("--what", default="", metavar="KIND", help="revision, command, trust, secrets, local, …")
    parser.add_argument("-n", type=int, default=100, dest="count", metavar="N", help="only the last N (100)")


def run(args: argparse.Namespace) -> int:
    """Show them."""
    with opened(args) as fleet, telemetry(fleet) as store:
        found = store.records(fleet.settings.cluster, device=args.device or "", stream=AUDIT.name)
        in_order = sorted(found, key=lambda one: (one.device, one.epoch, one.number))
        # A device that died sends again what it had not noted as sent.
        each = {(one.device, one.body.get("chain"), one.body.get("n")): one for one in reversed(in_order)}
        wanted = [one for one in reversed(each.values()) if args.what in ("", one.body.get("what"))]
        chosen = wanted[-args.count :] if args.count > 0 else []
    if args.output == "json":
        print_json({"records": [as_json(record) for record in chosen]})
    else:
        print_table(("TIME", "DEVICE", "N", "WHAT", "OUTCOME", "ABOUT"), [_row(record) for record in chosen])
    return 0


def _row(record: StoredRecord) -> tuple[str, ...]:
    body = record.body
    when = (record.time or f"boot+{body.get('t', '?')}ms") + ("" if record.certain else "?")
    about = ", ".join(f"{name} {_text(name, value)}" for name, value in body.items() if name not in _PLAIN)
    return when, record.device, str(body.get("n", "")), str(body.get("what", "")), str(body.get("outcome", "")), about


def _text(name: str, value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    # Key ids and task ids are known by their first digits, as everywhere.
    return " ".join(str(one)[:12] if name in ("keys", "tasks", "task", "bootId") else str(one) for one in values)
