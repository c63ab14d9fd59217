"""`edge local logs`."""

import argparse
import sys
from typing import Any

from edge.cli.local_socket import add_config, ask_agent
from edge.cli.output import print_json_line

HELP = "Show or follow what the containers of a task on this device write. Needs no network."
EXAMPLES = """\
examples:
  edge local logs 3f9a
  edge local logs -f 3f9a app"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", metavar="TASK", help="a task id, or the beginning of one")
    parser.add_argument("container", nargs="?", metavar="CONTAINER", help="only this one (default: all)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the container ends or Ctrl-C")
    parser.add_argument("--tail", type=int, metavar="N", default=100, help="begin with the last N lines (100)")
    add_config(parser)


def run(args: argparse.Namespace) -> int:
    """Show them."""

    def show(line: Any) -> None:
        if args.output == "json":
            print_json_line(line)
        else:
            print(line["text"], file=sys.stderr if line["stream"] == "stderr" else sys.stdout, flush=True)

    ask_agent(
        args, show, op="logs", taskId=args.task, container=args.container, tail=max(args.tail, 0), follow=args.follow
    )
    return 0
