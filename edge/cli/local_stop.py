"""`edge local stop`."""

import argparse

from edge.cli.local_socket import add_config, ask_agent, show_tasks

HELP = """\
Stop tasks on this device, whoever began them. A task of a service is replaced; one that the fleet assigned stays
stopped. The fleet is told who did it as soon as it can hear it."""
EXAMPLES = """\
examples:
  edge local stop 3f9a --reason "smoke\""""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", nargs="+", metavar="TASK", help="a task id, or the beginning of one")
    parser.add_argument("--reason", default="", metavar="TEXT", help="shown in stoppedReason")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Stop them."""
    return show_tasks(
        args, [ask_agent(args, op="stop", taskId=task, reason=args.reason)["tasks"][0] for task in args.task]
    )
