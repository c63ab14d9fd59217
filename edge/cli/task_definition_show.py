"""`edge task-definition show`."""

import argparse

from edge.cli.output import print_json
from edge.cli.session import opened
from edge.fleet.task_definitions import find

HELP = "Show a registered task definition as `aws ecs describe-task-definition` does, in JSON."
EXAMPLES = """\
examples:
  edge task-definition show app        the newest revision
  edge task-definition show app:3"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task_definition", metavar="FAMILY[:REVISION]", help="the newest revision if none is said")


def run(args: argparse.Namespace) -> int:
    """Show it: JSON in both forms, for it is a document to be kept and registered again."""
    with opened(args) as fleet:
        print_json(find(fleet.database, args.task_definition).to_wire())
    return 0
