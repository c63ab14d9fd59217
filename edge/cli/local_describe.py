"""`edge local describe`."""

import argparse

from edge.cli.local_socket import add_config, ask_agent
from edge.cli.output import print_json

HELP = "Show everything this device knows of a task, in the shape of `aws ecs describe-tasks`. Needs no network."
EXAMPLES = """\
examples:
  edge local describe 3f9a"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", metavar="TASK", help="a task id, or the beginning of one")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Describe it."""
    print_json(ask_agent(args, op="describe", taskId=args.task))
    return 0
