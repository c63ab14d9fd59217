"""`edge schedule create`."""

import argparse

from pydantic import ValidationError

from edge.cli.device_work import add_wait_options, change_work
from edge.cli.session import add_device_option, opened
from edge.errors import InvalidInputError
from edge.fleet.clock import now, timestamp
from edge.fleet.device_work import adding_work
from edge.fleet.devices import the_device
from edge.fleet.secrets import require_secrets
from edge.fleet.task_definitions import find
from edge.model.schedule import schedule_problems
from edge.model.secrets import secrets_of
from edge.model.service_documents import CatchUp, DesiredSchedule

HELP = """\
Let a device start tasks at given times, by its own clock, with or without a link. Expressions are those of EventBridge
Scheduler: rate(5 minutes), cron(minutes hours day-of-month month day-of-week year), at(yyyy-mm-ddThh:mm:ss). A schedule
of that name is replaced."""
EXAMPLES = """\
examples:
  edge schedule create nightly 'cron(0 3 * * ? *)' --timezone Europe/Vienna --task-definition backup --device pi-1
  edge schedule create probe 'rate(15 minutes)' --task-definition probe --catch-up skip"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("name", metavar="NAME", help="the schedule's name on the device")
    add("expression", metavar="EXPRESSION", help="when")
    add("--task-definition", required=True, metavar="FAMILY[:REVISION]", help="what is started")
    add("--timezone", default="UTC", metavar="ZONE", help="IANA name, for cron and at (default: UTC)")
    add("--count", type=int, default=1, metavar="N", help="how many tasks each time (1)")
    policies = [policy.value.lower() for policy in CatchUp]
    add("--catch-up", choices=policies, default="once", help="for times missed while the device was off (once)")
    add("--maximum-age", type=int, default=86_400, metavar="SECONDS", help="older missed times are left out (86400)")
    add("--overlap", choices=("allow", "skip"), default="skip", help="while an earlier task still runs (skip)")
    add("--start-date", default="", metavar="TIME", help="not before, RFC 3339")
    add("--end-date", default="", metavar="TIME", help="not after, RFC 3339")
    add("--disabled", action="store_true", help="known to the device, and not started")
    add_device_option(parser)
    add_wait_options(parser)


def run(args: argparse.Namespace) -> int:
    """Create it."""
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        definition = find(fleet.database, args.task_definition)
        require_secrets(fleet.database, secrets_of(definition.document).values())
        schedule = _schedule(args, definition.key)
        change_work(args, fleet, device, adding_work(device, schedule, new=False), f"schedule {args.name}")
    return 0


def _schedule(args: argparse.Namespace, key: str) -> DesiredSchedule:
    try:
        schedule = DesiredSchedule(
            name=args.name,
            schedule_expression=args.expression,
            schedule_expression_timezone=args.timezone,
            state="DISABLED" if args.disabled else "ENABLED",
            start_date=args.start_date,
            end_date=args.end_date,
            task_definition=key,
            task_count=args.count,
            catch_up=CatchUp(args.catch_up.upper()),
            maximum_event_age_in_seconds=args.maximum_age,
            overlap=args.overlap.upper(),
            created_at=timestamp(now()),
        )
    except ValidationError as error:
        problems = tuple((".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors())
        raise InvalidInputError("this is no schedule", problems=problems) from error
    problems = tuple(schedule_problems(schedule))
    if problems:
        raise InvalidInputError("this is no schedule", problems=problems)
    return schedule
