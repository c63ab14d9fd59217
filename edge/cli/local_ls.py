"""`edge local ls`."""

import argparse

from edge.cli.local_socket import add_config, ask_agent, show_tasks

HELP = "List the tasks of this device, whoever began them. Needs no network."
EXAMPLES = """\
examples:
  edge local ls"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_config(parser)
    parser.add_argument("--all", action="store_true", help="the stopped ones too")


def run(args: argparse.Namespace) -> int:
    """List them."""
    tasks = ask_agent(args, op="ls")["tasks"]
    return show_tasks(args, [task for task in tasks if args.all or task["lastStatus"] != "STOPPED"])
