"""`edge task run`."""

import argparse
import secrets
from typing import Final

from edge.cli.output import note, print_json
from edge.cli.session import add_device_option, connected, opened
from edge.cli.views import short, task_object
from edge.cli.watching import Watching
from edge.errors import DeadlineError, EdgeError, InvalidInputError
from edge.fleet.assignments import TaskRecord
from edge.fleet.clock import now, timestamp
from edge.fleet.devices import DeviceRecord, the_device
from edge.fleet.folder import Fleet
from edge.fleet.observing import observe
from edge.fleet.publishing import publish_newest
from edge.fleet.secrets import require_secrets
from edge.fleet.task_definitions import RegisteredTaskDefinition, find
from edge.fleet.tasks import adding, find_task, next_revision
from edge.fleet.watching import TaskWatch, ran_to_its_end, reason_of
from edge.model.secrets import secrets_of
from edge.model.topics import Topics
from edge.model.trust import Role

HELP = """\
Start a task on a device. Composes the device's next desired state, signs it, publishes it retained, and shows the
task's life until it is RUNNING, or has STOPPED with a reason (exit 1), or the device refuses it (exit 5), or the
time is over (exit 6; the task stays assigned and starts when the device can)."""
EXAMPLES = """\
examples:
  edge task run app --device pi-1
  edge task run app:3 --device pi-1 --count 2 --started-by release-42
  edge task run app --device pi-1 --no-wait --output json"""
_MAXIMUM_COUNT: Final = 10
"""As ECS's RunTask."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task_definition", metavar="FAMILY[:REVISION]", help="the newest revision if none is said")
    add_device_option(parser)
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many tasks, up to 10 (default: 1)")
    parser.add_argument("--group", default="", metavar="TEXT", help="the task's group (default: family:FAMILY)")
    parser.add_argument("--started-by", default="", metavar="TEXT", help="who asks; shown in startedBy")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="SECONDS", help="how long to watch (300)")
    parser.add_argument("--no-wait", action="store_true", help="do not watch: done when the broker has the assignment")


def run(args: argparse.Namespace) -> int:
    """Start tasks and watch them."""
    if not 1 <= args.count <= _MAXIMUM_COUNT:
        raise InvalidInputError(f"--count is 1 to {_MAXIMUM_COUNT}, not {args.count}")
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        definition = find(fleet.database, args.task_definition)
        require_secrets(fleet.database, secrets_of(definition.document).values())
        signers = fleet.signers(Role.DESIRED_STATE)
        # Connected first: when the broker is away nothing is assigned that would start by surprise later.
        with connected(args, fleet) as link:
            view = observe(link, fleet, [device])[device.device]
            tasks = [new_task(device, definition, args.group, args.started_by) for _ in range(args.count)]
            link.subscribe((Topics(device.cluster, device.device).event("task"), 1))
            revision = next_revision(fleet.database, signers, device, now(), adding(tasks))
            publish_newest(link, fleet.database, device)
            ids = [task.task_id for task in tasks]
            if args.no_wait:
                return _print_ids(args, fleet, ids)
            note(f"{definition.key} on {device.device}, revision {revision.number}: {' '.join(map(short, ids))}")
            watching = Watching(
                fleet, link, device, revision.number, TaskWatch(ids), view, as_json=args.output == "json"
            )
            return _watch(args, watching, ids)


def new_task(
    device: DeviceRecord, definition: RegisteredTaskDefinition, group: str = "", started_by: str = ""
) -> TaskRecord:
    """Return a task that was never assigned yet."""
    return TaskRecord(
        task_id=secrets.token_hex(16),
        cluster=device.cluster,
        device=device.device,
        task_definition=definition.key,
        group=group or f"family:{definition.family}"[:255],
        started_by=started_by,
        created_at=timestamp(now()),
        created_revision=0,
        changed_revision=0,
    )


def _print_ids(args: argparse.Namespace, fleet: Fleet, ids: list[str]) -> int:
    if args.output == "json":
        print_json({"tasks": [task_object(find_task(fleet.database, task_id)) for task_id in ids], "failures": []})
    else:
        print("\n".join(ids))
    return 0


def _watch(args: argparse.Namespace, watching: Watching, ids: list[str]) -> int:
    for _ in watching.follow(args.timeout):
        if watching.watch.all_in("RUNNING", "STOPPED"):
            return _ended(watching, ids)
    name = watching.device.device
    states = ", ".join(
        f"{short(task_id)} {watching.watch.status(task_id) or 'not spoken of'}"
        + (f" ({reason})" if (reason := reason_of(watching.watch.detail(task_id))) else "")
        for task_id in ids
    )
    where = "" if watching.view.is_online else f"; {name} is {watching.view.connection}{_since(watching)}"
    raise DeadlineError(
        f"not running after {args.timeout:g} s: {states}{where}",
        hint=f"It stays assigned. See `edge task describe {short(ids[0])}`, or give it up: `edge task stop`.",
    )


def _since(watching: Watching) -> str:
    reported = watching.view.report.get("time")
    return f", its last report is of {reported}" if reported else ""


def _ended(watching: Watching, ids: list[str]) -> int:
    stopped = [task_id for task_id in ids if watching.watch.status(task_id) == "STOPPED"]
    failed = [task_id for task_id in stopped if not ran_to_its_end(watching.watch.detail(task_id))]
    for task_id in failed:
        watching.print_containers(task_id)
    if failed:
        reasons = "; ".join(f"{short(one)}: {reason_of(watching.watch.detail(one)) or 'no reason'}" for one in failed)
        raise EdgeError(f"stopped: {reasons}", hint=f"`edge task describe {short(failed[0])}` shows everything.")
    return 0
