"""`edge service update`."""

import argparse

from edge.cli.device_work import add_wait_options, change_work
from edge.cli.service_options import add_service_options, service_from
from edge.cli.session import add_device_option, opened
from edge.fleet.device_work import adding_work, find_service
from edge.fleet.devices import the_device
from edge.fleet.secrets import require_secrets
from edge.fleet.task_definitions import find
from edge.model.secrets import secrets_of

HELP = """\
Change a service; what is not said stays. Another task definition is a deployment: it must become healthy in its time,
or the device returns to the one before by itself (exit 5), also when nobody can reach it, and does not try the failed
one again."""
EXAMPLES = """\
examples:
  edge service update web --task-definition web      the newest revision
  edge service update web --desired-count 3 --device pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", metavar="NAME", help="the service's name on the device")
    parser.add_argument("--task-definition", metavar="FAMILY[:REVISION]", help="what it runs from now on")
    add_device_option(parser)
    add_service_options(parser)
    add_wait_options(parser)


def run(args: argparse.Namespace) -> int:
    """Change it."""
    with opened(args) as fleet:
        device = the_device(fleet, args.device)
        known = find_service(fleet.database, device, args.name)
        definition = find(fleet.database, args.task_definition or known.task_definition)
        require_secrets(fleet.database, secrets_of(definition.document).values())
        service = service_from(args, known, definition)
        change_work(args, fleet, device, adding_work(device, service, new=False), f"service {args.name}")
    return 0
