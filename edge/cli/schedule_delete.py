"""`edge schedule delete`."""

import argparse

from edge.cli.device_work import add_wait_options, change_work
from edge.cli.session import add_device_option, opened
from edge.fleet.device_work import SCHEDULE, removing_work
from edge.fleet.devices import the_device

HELP = "Remove a schedule from a device; tasks it has started go on."
EXAMPLES = """\
examples:
  edge schedule delete nightly --device pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the schedule's name on the device")
    add_device_option(parser)
    add_wait_options(parser)


def run(args: argparse.Namespace) -> int:
    """Remove it."""
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        change_work(args, fleet, device, removing_work(device, SCHEDULE, args.name), f"schedule {args.name} removed")
    return 0
