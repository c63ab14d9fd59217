"""What `edge fleet enrollment approve` and `… deny` have in common."""

import argparse
from collections.abc import Callable
from datetime import datetime

from edge.cli.output import print_fields, print_json
from edge.cli.session import opened
from edge.fleet.clock import now
from edge.fleet.enrollments import Enrollment
from edge.fleet.folder import Fleet


def add_request(parser: argparse.ArgumentParser) -> None:
    """Let a command take a request."""
    parser.add_argument("request", metavar="REQUEST", help="the beginning of the request's id, or the device's name")


def decide(args: argparse.Namespace, decision: Callable[[Fleet, str, datetime], Enrollment]) -> int:
    """Decide about the request that was named, and tell."""
    with opened(args) as fleet:
        enrollment = decision(fleet, args.request, now())
    told = {"enrollmentId": enrollment.id, "device": enrollment.device, "state": enrollment.state.value}
    if args.output == "json":
        print_json(told)
    else:
        print_fields(list(told.items()))
    return 0
