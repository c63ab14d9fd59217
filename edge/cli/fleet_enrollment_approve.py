"""`edge fleet enrollment approve`."""

import argparse

from edge.cli.output import print_fields, print_json
from edge.cli.session import opened
from edge.fleet.clock import now
from edge.fleet.enrollments import approve

HELP = """\
Give a waiting device its identity, the next time it asks: within seconds, if `edge agent enroll` runs on it. Compare
the request's id with the one that the device shows."""
EXAMPLES = """\
examples:
  edge fleet enrollment approve 3f2a"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("request", metavar="REQUEST", help="the beginning of the request's id, or the device's name")


def run(args: argparse.Namespace) -> int:
    """Decide."""
    with opened(args) as fleet:
        enrollment = approve(fleet, args.request, now())
    told = {"enrollmentId": enrollment.id, "device": enrollment.device, "decision": "approved"}
    if args.output == "json":
        print_json(told)
    else:
        print_fields(list(told.items()))
    return 0
