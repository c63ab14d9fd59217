"""`edge firmware resume`."""

import argparse
import logging

from edge.cli.firmware_device import add_options, load_device, make_updater
from edge.cli.output import note

HELP = """\
Carry out what was asked for and is not done: an update by command, or one that a crash or a power cut left half way.
`edge-update.service` runs it at boot and when a request comes; with nothing to do it ends at once."""
EXAMPLES = """\
examples:
  edge firmware resume"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Take it to its end."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    config = load_device(args)
    result = make_updater(args, config).carry_on()
    if result is not None:
        from edge.model.runtime_update import told  # noqa: PLC0415 - imported when it runs

        note(f"the last update: {result.outcome.value}: {told(result)}")
    return 0
