"""`edge task logs`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edge.cli.output import note, print_json, print_json_line
from edge.cli.session import connected, opened
from edge.fleet.clock import now
from edge.fleet.commands import SealedCommand, compose_command
from edge.fleet.devices import find_device
from edge.fleet.link import FleetLink
from edge.fleet.log_stream import LinesLost, LogItem, LogRecord, StreamEnded, follow, tail
from edge.fleet.tasks import find_task
from edge.model.documents import Operation
from edge.model.trust import Role

HELP = """\
Show what a task's containers wrote, or follow it. What a container wrote to stderr goes to stderr here, too."""
EXAMPLES = """\
examples:
  edge task logs 3f9a
  edge task logs -f --tail 20 3f9a web
  edge task logs 3f9a --timestamps 2>/dev/null"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", metavar="TASK", help="a task id, or the beginning of one")
    parser.add_argument("container", nargs="?", metavar="CONTAINER", help="only this one (default: all)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the task ends or Ctrl-C")
    parser.add_argument("--tail", type=int, metavar="N", help="begin with the last N lines (default: 100)", default=100)
    parser.add_argument("-t", "--timestamps", action="store_true", help="show when each line was written")


def run(args: argparse.Namespace) -> int:
    """Show them."""
    with opened(args) as fleet:
        task = find_task(fleet.database, args.task)
        parameters: dict[str, Any] = {"taskId": task.task_id, "tail": max(args.tail, 0), "follow": args.follow}
        if args.container:
            parameters["container"] = args.container
        device = find_device(fleet.database, task.cluster, task.device)
        command = compose_command(device, Operation.LOGS, parameters, fleet.signers(Role.COMMAND), now())
        with connected(args, fleet) as link:
            if args.follow:
                _follow(args, link, command)
            else:
                _tail(args, link, command)
    return 0


def _tail(args: argparse.Namespace, link: FleetLink, command: SealedCommand) -> None:
    lines, truncated = tail(link, command)
    if args.output == "json":
        print_json({"lines": [asdict(line) for line in lines], "truncated": truncated})
        return
    if truncated:
        note("(earlier lines were left out: an answer has a largest size)")
    _print(args, lines, prefixed=_several(args, lines))


def _several(args: argparse.Namespace, lines: Sequence[LogRecord]) -> bool:
    return not args.container and len({line.container for line in lines}) > 1


def _follow(args: argparse.Namespace, link: FleetLink, command: SealedCommand) -> None:
    items = follow(link, command)
    try:
        for item in items:
            _show(args, item)
    finally:
        items.close()


def _show(args: argparse.Namespace, item: LogItem) -> None:
    match item:
        case LogRecord() if args.output == "json":
            print_json_line(asdict(item))
        case LogRecord():
            _print(args, [item], prefixed=not args.container)
        case LinesLost():
            note(f"({item.count} lines were lost on the way)")
        case StreamEnded():
            note(f"(the end: {item.reason})")


def _print(args: argparse.Namespace, lines: Sequence[LogRecord], *, prefixed: bool) -> None:
    for line in lines:
        when = f"{line.time} " if args.timestamps else ""
        who = f"{line.container} | " if prefixed else ""
        print(f"{when}{who}{line.text}", file=sys.stderr if line.stream == "stderr" else sys.stdout, flush=True)
