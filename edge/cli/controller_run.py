"""`edge controller run`."""

import argparse
import logging
import shlex
import time
from dataclasses import replace
from typing import Final

from edge.cli.output import note
from edge.cli.session import opened
from edge.fleet.broker_lists import BrokerLists
from edge.fleet.clock import now
from edge.fleet.controller import Controller
from edge.fleet.link import paho_broker

HELP = """\
Answer the fleet's devices until Ctrl-C: what the newest revision is, and what time, so that a broker cannot hold a
revision back unseen. It needs only a key that may sign as `head`. Devices work without it. Run one for a cluster."""
EXAMPLES = """\
examples:
  edge fleet key add controller --role head     a key that can do nothing else
  edge controller run --reload 'systemctl reload mosquitto'"""
_LONGEST_PAUSE_SECONDS: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--reload",
        default="",
        metavar="COMMAND",
        help="makes Mosquitto read its lists again, after a device has enrolled; run without a shell",
    )
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end after so long")


def run(args: argparse.Namespace) -> int:
    """Answer."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with opened(args) as fleet:
        settings = replace(
            fleet.folder.broker_settings(fleet.settings.operator, f"operator-controller-{fleet.settings.cluster}"),
            backoff_last_seconds=_LONGEST_PAUSE_SECONDS,
        )
        lists = BrokerLists(fleet, shlex.split(args.reload), now)
        controller = Controller((args.brokers or paho_broker)(settings), fleet, now, lists.let_in)
        controller.start()
        end = None if args.seconds is None else time.monotonic() + args.seconds
        try:
            while end is None or (left := end - time.monotonic()) > 0:
                controller.step(None if end is None else left)
        except KeyboardInterrupt:
            pass
        finally:
            controller.close()
            note(f"{controller.answered} questions answered, {controller.refused} refused")
    return 0
