"""`edge fleet enrollment approve`."""

import argparse

from edge.cli.enrollment_decision import add_request, decide
from edge.fleet.enrollments import approve

HELP = """\
Give a waiting device its identity, the next time it asks: within seconds, if `edge agent enroll` runs on it. Compare
the request's id with the one that the device shows."""
EXAMPLES = """\
examples:
  edge fleet enrollment approve 3f2a"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_request(parser)


def run(args: argparse.Namespace) -> int:
    """Decide."""
    return decide(args, approve)
