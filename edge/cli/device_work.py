"""What `edge service …` and `edge schedule …` share: changing what a device does by itself, and watching it."""

import argparse
from collections.abc import Callable

from edge.cli.output import note
from edge.cli.session import connected
from edge.errors import DeadlineError, InvalidInputError, RefusedError
from edge.fleet.clock import now
from edge.fleet.database import Database
from edge.fleet.devices import DeviceRecord
from edge.fleet.folder import Fleet
from edge.fleet.messages import Reported, RevisionJudged
from edge.fleet.observing import DeviceView, observe, rejection_reason
from edge.fleet.publishing import publish_newest
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.documents import RevisionOutcome
from edge.model.trust import Role


def add_wait_options(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--timeout` and `--no-wait`."""
    parser.add_argument("--timeout", type=float, default=330.0, metavar="SECONDS", help="how long to watch (330)")
    parser.add_argument("--no-wait", action="store_true", help="do not watch: done when the broker has it")


def change_work(
    args: argparse.Namespace, fleet: Fleet, device: DeviceRecord, work: Callable[[Database], None], what: str
) -> None:
    """Change a device's services or schedules, and watch what it makes of it.

    Raises:
        InvalidInputError: The device refused it; nothing has changed there.
        RefusedError: It was not healthy there, and the device has gone back to what it ran before.
        DeadlineError: It has not come to rest.
    """
    signers = fleet.signers(Role.DESIRED_STATE)
    with connected(args, fleet) as link:
        view = observe(link, fleet, [device])[device.device]
        revision = next_revision(fleet.database, signers, device, now(), nothing_new, work=work)
        publish_newest(link, fleet.database, device)
        if args.no_wait:
            return
        note(f"{what} on {device.device}, revision {revision.number} ({view.connection})")
        for message in link.messages(args.timeout):
            if isinstance(message, Reported | RevisionJudged) and message.device.device == device.device:
                view.take(message)
            if _is_over(view, revision.number):
                return
    raise DeadlineError(
        f"{what}: not at rest after {args.timeout:g} s; {device.device} is {view.connection}",
        hint=f"It stays assigned. `edge device show {device.device}` tells how far it is.",
    )


def _is_over(view: DeviceView, revision: int) -> bool:
    ack = view.ack
    if ack is None or ack.revision != revision:
        return False
    match ack.outcome:
        case RevisionOutcome.APPLIED | RevisionOutcome.SUPERSEDED:
            return True
        case RevisionOutcome.REJECTED:
            problems = tuple((error.path, error.message) for error in ack.errors)
            raise InvalidInputError(f"the device refused revision {revision}", problems=problems)
        case RevisionOutcome.ROLLED_BACK:
            raise RefusedError(
                f"the device went back to what it ran before: {rejection_reason(ack)}",
                hint="Look at the failed tasks with `edge task ls --all` and `edge task logs`.",
            )
        case RevisionOutcome.ACCEPTED:
            return False
