"""`edge task ls`."""

import argparse
from typing import Any

from edge.cli.output import age, print_json, print_table
from edge.cli.session import add_device_option, opened
from edge.cli.views import devices_named, observe_or_recall, short, task_object, text_of
from edge.fleet.clock import now
from edge.fleet.tasks import list_tasks
from edge.fleet.watching import reason_of

HELP = "List the fleet's tasks with their state and, when one does not get on, the reason."
EXAMPLES = """\
examples:
  edge task ls
  edge task ls --device pi-1 --all      the stopped ones too"""
_COLUMNS = ("TASK", "DEVICE", "TASK DEFINITION", "STATUS", "DESIRED", "AGE", "REASON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)
    parser.add_argument("--all", action="store_true", help="the stopped ones too")


def run(args: argparse.Namespace) -> int:
    """List them."""
    with opened(args) as fleet:
        observe_or_recall(args, fleet, devices_named(fleet, args.device))
        tasks = [(task.device, task_object(task)) for task in list_tasks(fleet.database, args.device, stopped=args.all)]
    if args.output == "json":
        print_json({"tasks": [task for _, task in tasks]})
    else:
        print_table(_COLUMNS, [_row(device, task) for device, task in tasks])
    return 0


def _row(device: str, task: dict[str, Any]) -> tuple[str, ...]:
    return (
        short(text_of(task, "taskId")),
        device,
        text_of(task, "taskDefinitionArn").rpartition("/")[2],
        text_of(task, "lastStatus"),
        text_of(task, "desiredStatus"),
        age(text_of(task, "createdAt"), now()),
        reason_of(task),
    )
