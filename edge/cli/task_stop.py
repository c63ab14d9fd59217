"""`edge task stop`."""

import argparse
from collections.abc import Sequence

from edge.cli.output import note, print_json
from edge.cli.session import connected, opened
from edge.cli.views import short, task_object
from edge.cli.watching import Watching
from edge.errors import DeadlineError, InvalidInputError
from edge.fleet.assignments import TaskRecord
from edge.fleet.clock import now
from edge.fleet.commands import await_result, compose_command, send
from edge.fleet.devices import find_device
from edge.fleet.folder import Fleet
from edge.fleet.link import FleetLink
from edge.fleet.observing import observe
from edge.fleet.publishing import publish_newest
from edge.fleet.tasks import find_task, next_revision, nothing_new, stopping_tasks
from edge.fleet.watching import TaskWatch
from edge.model.documents import Operation
from edge.model.topics import Topics
from edge.model.trust import Role

HELP = """\
Stop tasks of one device and watch until they have. A device that is away is told when it comes back. Stopping what
has stopped already is no error."""
EXAMPLES = """\
examples:
  edge task stop 3f9a
  edge task stop 3f9a --reason "moved to pi-2" --no-wait"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", nargs="+", metavar="TASK", help="a task id, or the beginning of one")
    parser.add_argument(
        "--reason", default="Task stopped by the operator", metavar="TEXT", help="shown in stoppedReason"
    )
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="how long to watch (120)")
    parser.add_argument("--no-wait", action="store_true", help="do not watch: done when the broker has it")


def run(args: argparse.Namespace) -> int:
    """Stop them."""
    with opened(args) as fleet:
        tasks = [find_task(fleet.database, name) for name in args.task]
        if len({task.device for task in tasks}) > 1:
            raise InvalidInputError("these tasks are on different devices", hint="Stop those of one device at a time.")
        if not all(task.is_over for task in tasks):
            with connected(args, fleet) as link:
                _stop(args, fleet, link, tasks)
        stopped = [task_object(find_task(fleet.database, task.task_id)) for task in tasks]
    if args.output == "json":
        print_json({"tasks": stopped})
    else:
        for task in stopped:
            note(f"{short(task['taskId'])} {task['lastStatus']}")
    return 0


def _stop(args: argparse.Namespace, fleet: Fleet, link: FleetLink, tasks: Sequence[TaskRecord]) -> None:
    device = find_device(fleet.database, tasks[0].cluster, tasks[0].device)
    view = observe(link, fleet, [device])[device.device]
    link.subscribe((Topics(device.cluster, device.device).event("task"), 1))
    for task in tasks:
        if not task.is_assigned and not task.is_over:
            # No desired state names it: the device is told itself.
            parameters = {"taskId": task.task_id, "reason": args.reason}
            command = compose_command(device, Operation.STOP_TASK, parameters, fleet.signers(Role.COMMAND), now())
            send(link, command)
            await_result(link, command)
    ids = [task.task_id for task in tasks]
    revision = next_revision(
        fleet.database, fleet.signers(Role.DESIRED_STATE), device, now(), stopping_tasks(ids, args.reason)
    )
    publish_newest(link, fleet.database, device)
    if args.no_wait:
        return
    watching = Watching(fleet, link, device, revision.number, TaskWatch(ids), view, as_json=False)
    for _ in watching.follow(args.timeout):
        if all(find_task(fleet.database, task_id).is_over for task_id in ids):
            # What is over leaves the desired state, so that the document does not grow for ever.
            next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), device, now(), nothing_new)
            publish_newest(link, fleet.database, device)
            return
    raise DeadlineError(
        f"not stopped after {args.timeout:g} s: {', '.join(map(short, ids))} on {device.device} ({view.connection})",
        hint="It is told to stop as soon as it can hear it; `edge task describe` shows how far it is.",
    )
