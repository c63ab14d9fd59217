"""`edge fleet enrollment deny`."""

import argparse

from edge.cli.enrollment_decision import add_request, decide
from edge.fleet.enrollments import deny

HELP = """\
Refuse a waiting device for good. It does not count against its activation's limit any more; whoever knows the code
may ask with another key: `edge fleet activation revoke` ends that."""
EXAMPLES = """\
examples:
  edge fleet enrollment deny 3f2a"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_request(parser)


def run(args: argparse.Namespace) -> int:
    """Decide."""
    return decide(args, deny)
