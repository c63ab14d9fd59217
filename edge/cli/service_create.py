"""`edge service create`."""

import argparse

from edge.cli.device_work import add_wait_options, change_work
from edge.cli.service_options import add_service_options, service_from
from edge.cli.session import add_device_option, opened
from edge.fleet.clock import now, timestamp
from edge.fleet.device_work import adding_work
from edge.fleet.devices import the_device
from edge.fleet.secrets import require_secrets
from edge.fleet.task_definitions import find
from edge.model.secrets import secrets_of

HELP = """\
Let a device keep a number of tasks of one definition running, by itself, with or without a link: what ends is
replaced, what is unhealthy too. Watches until all are healthy (exit 0), the device refuses it (exit 2), gives it up
(exit 5), or the time is over (exit 6)."""
EXAMPLES = """\
examples:
  edge service create web --task-definition web --device pi-1
  edge service create web --task-definition web:3 --device pi-1 --desired-count 2 --healthy-within 120
  edge service create probe --task-definition probe --device pi-1 --daemon"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the service's name on the device")
    parser.add_argument("--task-definition", required=True, metavar="FAMILY[:REVISION]", help="what it runs")
    parser.add_argument("--daemon", action="store_true", help="exactly one task (schedulingStrategy DAEMON)")
    add_device_option(parser)
    add_service_options(parser)
    add_wait_options(parser)


def run(args: argparse.Namespace) -> int:
    """Create it."""
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        definition = find(fleet.database, args.task_definition)
        strategy = "DAEMON" if args.daemon else "REPLICA"
        created = timestamp(now())
        require_secrets(fleet.database, secrets_of(definition.document).values())
        service = service_from(
            args, None, definition, serviceName=args.name, schedulingStrategy=strategy, createdAt=created
        )
        change_work(args, fleet, device, adding_work(device, service, new=True), f"service {args.name}")
    return 0
