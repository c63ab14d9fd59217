"""`edge schedule ls`."""

import argparse
from typing import Any

from edge.cli.output import print_json, print_table
from edge.cli.session import add_device_option, opened
from edge.cli.views import devices_named, objects_in, observe_or_recall, text_of
from edge.fleet.device_work import schedules_of
from edge.model.service_documents import DesiredSchedule

HELP = "List schedules with the time each comes next, as its device says, and how many times were missed."
EXAMPLES = """\
examples:
  edge schedule ls --device pi-1"""
_COLUMNS = ("SCHEDULE", "DEVICE", "TASK DEFINITION", "EXPRESSION", "ZONE", "STATE", "NEXT", "MISSED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """List them."""
    with opened(args) as fleet:
        devices = devices_named(fleet, args.device)
        views = observe_or_recall(args, fleet, devices)
        found = [
            (device.device, schedule, told.get(schedule.name, {}))
            for device in devices
            for told in [{text_of(one, "name"): one for one in objects_in(views[device.device], "schedules")}]
            for schedule in schedules_of(fleet.database, device)
        ]
    if args.output == "json":
        print_json({"schedules": [{"device": device, **one.to_wire(), **told} for device, one, told in found]})
    else:
        print_table(_COLUMNS, [_row(*one) for one in found])
    return 0


def _row(device: str, schedule: DesiredSchedule, told: dict[str, Any]) -> tuple[str, ...]:
    return (
        schedule.name,
        device,
        schedule.task_definition,
        schedule.schedule_expression,
        schedule.schedule_expression_timezone,
        schedule.state,
        text_of(told, "nextTime"),
        text_of(told, "missed"),
    )
