"""`edge fleet enrollment deny`."""

import argparse

from edge.cli.output import print_fields, print_json
from edge.cli.session import opened
from edge.fleet.clock import now
from edge.fleet.enrollments import deny

HELP = """\
Refuse a waiting device for good. It does not count against its activation's limit any more; whoever knows the code
may ask with another key: `edge fleet activation revoke` ends that."""
EXAMPLES = """\
examples:
  edge fleet enrollment deny 3f2a"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("request", metavar="REQUEST", help="the beginning of the request's id, or the device's name")


def run(args: argparse.Namespace) -> int:
    """Decide."""
    with opened(args) as fleet:
        enrollment = deny(fleet, args.request, now())
    told = {"enrollmentId": enrollment.id, "device": enrollment.device, "decision": "denied"}
    if args.output == "json":
        print_json(told)
    else:
        print_fields(list(told.items()))
    return 0
