"""`edge task describe`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from edge.cli.output import print_fields, print_json, print_table
from edge.cli.session import connected, opened
from edge.cli.views import observe_or_recall, task_object, text_of
from edge.fleet.assignments import TaskRecord
from edge.fleet.clock import now
from edge.fleet.commands import await_result, compose_command, send
from edge.fleet.devices import find_device
from edge.fleet.folder import Fleet
from edge.fleet.observing import DeviceView
from edge.fleet.tasks import find_task, tasks_by_id
from edge.fleet.watching import Detail, containers_of, reason_of
from edge.model.documents import Operation
from edge.model.trust import Role

HELP = """\
Show everything about tasks: where they are in their life, why, and each container with its exit code, reason, image
and ports. --output json is the shape of `aws ecs describe-tasks`."""
EXAMPLES = """\
examples:
  edge task describe 3f9a
  edge task describe 3f9a --live                ask the device itself, not what it reported last
  edge task describe 3f9a --output json | jq .tasks[0].stoppedReason"""
_TIMES = (
    ("createdAt", "created"),
    ("pullStartedAt", "pull started"),
    ("pullStoppedAt", "pull stopped"),
    ("startedAt", "started"),
    ("stoppingAt", "stopping"),
    ("stoppedAt", "stopped"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", nargs="+", metavar="TASK", help="a task id, or the beginning of one")
    parser.add_argument("--live", action="store_true", help="ask the device by a signed command, and wait for it")


def run(args: argparse.Namespace) -> int:
    """Describe them."""
    with opened(args) as fleet:
        named = [find_task(fleet.database, name) for name in args.task]
        views = _views(args, fleet, named)
        tasks = [find_task(fleet.database, task.task_id) for task in named]
        objects = [_live(args, fleet, task) if args.live else task_object(task) for task in tasks]
    if args.output == "json":
        print_json({"tasks": objects, "failures": []})
        return 0
    for index, (task, found) in enumerate(zip(tasks, objects, strict=True)):
        if index:
            print()
        _print(task, found, views[task.device])
    return 0


def _views(args: argparse.Namespace, fleet: Fleet, tasks: Sequence[TaskRecord]) -> dict[str, DeviceView]:
    names = sorted({(task.cluster, task.device) for task in tasks})
    return observe_or_recall(args, fleet, [find_device(fleet.database, *name) for name in names])


def _live(args: argparse.Namespace, fleet: Fleet, task: TaskRecord) -> dict[str, Any]:
    device = find_device(fleet.database, task.cluster, task.device)
    command = compose_command(device, Operation.DESCRIBE, {"taskId": task.task_id}, fleet.signers(Role.COMMAND), now())
    with connected(args, fleet) as link:
        send(link, command)
        found = tasks_by_id(await_result(link, command).result).get(task.task_id, {})
    return task_object(task) | found


def _print(task: TaskRecord, found: Mapping[str, Any], view: DeviceView) -> None:
    fields = [
        ("task", text_of(found, "taskId")),
        ("task definition", task.task_definition),
        ("device", f"{task.device} ({view.connection})"),
        ("status", text_of(found, "lastStatus")),
        ("desired", text_of(found, "desiredStatus")),
        ("reason", reason_of(found)),
        ("health", text_of(found, "healthStatus")),
        ("group", text_of(found, "group")),
        ("started by", text_of(found, "startedBy")),
        *((label, text_of(found, name)) for name, label in _TIMES),
    ]
    print_fields(fields)
    containers = containers_of(found)
    if containers:
        print()
        print_table(
            ("CONTAINER", "STATUS", "HEALTH", "RESTARTS", "EXIT", "IMAGE", "PORTS", "REASON"),
            [_container_row(one) for one in containers],
        )


def _container_row(container: Detail) -> tuple[str, ...]:
    return (
        text_of(container, "name"),
        text_of(container, "lastStatus"),
        text_of(container, "healthStatus"),
        text_of(container, "restartCount"),
        text_of(container, "exitCode"),
        text_of(container, "image"),
        _ports(container),
        text_of(container, "reason"),
    )


def _ports(container: Detail) -> str:
    bindings = container.get("networkBindings")
    found = [one for one in bindings if isinstance(one, dict)] if isinstance(bindings, list) else []
    return ", ".join(f"{one.get('hostPort')}->{one.get('containerPort')}/{one.get('protocol', 'tcp')}" for one in found)
