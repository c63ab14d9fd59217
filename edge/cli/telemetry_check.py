"""`edge telemetry check`."""

import argparse
from dataclasses import asdict

from edge.cli.output import print_json, print_table
from edge.cli.session import add_device_option, opened
from edge.cli.telemetry_common import telemetry
from edge.errors import EdgeError
from edge.fleet.telemetry_store import Conservation

HELP = """\
Check that everything the devices produced is accounted for: delivered, or told as lost with the reason. Exit 1 when
something is missing without a word (it may still be on its way)."""
EXAMPLES = """\
examples:
  edge telemetry check
  edge telemetry check --device pi-1 --output json"""
_COLUMNS = ("DEVICE", "STREAM", "EPOCH", "PRODUCED", "DELIVERED", "LOST", "MISSING", "WHY LOST")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """Check it."""
    with opened(args) as fleet, telemetry(fleet) as store:
        accounts = store.check(fleet.settings.cluster, args.device or "")
    if args.output == "json":
        print_json({"accounts": [asdict(account) for account in accounts]})
    else:
        print_table(_COLUMNS, [_row(account) for account in accounts])
    missing = [account for account in accounts if account.missing]
    if missing:
        raise EdgeError(
            f"{len(missing)} of {len(accounts)} streams miss records that nobody told of",
            hint="They may be on their way: look again when the devices have sent their backlog (`edge device show`).",
        )
    return 0


def _row(account: Conservation) -> tuple[str, ...]:
    missing = ", ".join(f"{first}-{last}" for first, last in account.missing[:5])
    return (
        account.device,
        account.stream,
        str(account.epoch),
        f"{account.produced}{'+' if account.open_ended else ''}",
        str(account.delivered),
        str(account.lost),
        missing + (" …" if len(account.missing) > 5 else ""),  # noqa: PLR2004
        ", ".join(account.reasons),
    )
