"""`edge telemetry collect`."""

import argparse
import logging
from dataclasses import replace
from typing import Final

from edge.cli.output import note
from edge.cli.session import opened
from edge.cli.telemetry_common import telemetry
from edge.fleet.clock import now, timestamp
from edge.fleet.link import paho_broker
from edge.fleet.telemetry_collect import TelemetryCollector

HELP = """\
Store what the fleet's devices measure, until Ctrl-C. While it does not run, the devices keep what they measure. Run
one of it for a cluster."""
EXAMPLES = """\
examples:
  edge telemetry collect
  edge telemetry collect --for 60        a minute of it"""
_SESSION_SECONDS: Final = 60
"""For a connection that was lost, with what was on its way. Longer, and the broker would acknowledge to devices what it
then drops when its queue is full: without a session it says that nobody has subscribed, and they keep their records."""
_LONGEST_PAUSE_SECONDS: Final = 10.0
_RECEIVE_MAXIMUM: Final = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end after so long")


def run(args: argparse.Namespace) -> int:
    """Collect."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with opened(args) as fleet, telemetry(fleet) as store:
        client_id = f"operator-telemetry-{fleet.settings.cluster}"
        settings = replace(
            fleet.folder.broker_settings(fleet.settings.operator, client_id),
            session_expiry_seconds=_SESSION_SECONDS,
            backoff_last_seconds=_LONGEST_PAUSE_SECONDS,
            receive_maximum=_RECEIVE_MAXIMUM,
        )
        broker = (args.brokers or paho_broker)(settings)
        collector = TelemetryCollector(broker, store, fleet.settings.cluster, lambda: timestamp(now()))
        collector.start()
        end = None if args.seconds is None else now().timestamp() + args.seconds
        try:
            while end is None or (left := end - now().timestamp()) > 0:
                collector.step(None if end is None else left)
        except KeyboardInterrupt:
            pass
        finally:
            collector.close()
            known = f"{collector.doubled} known already, {collector.unreadable} unreadable"
            note(f"{collector.stored} blocks stored, {known}")
    return 0
