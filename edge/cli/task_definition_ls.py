"""`edge task-definition ls`."""

import argparse
from typing import Any

from edge.cli.output import print_json, print_table
from edge.cli.session import opened
from edge.fleet.task_definitions import RegisteredTaskDefinition, ls
from edge.model.identifiers import task_definition_arn

HELP = "List the registered task definitions, every revision."
EXAMPLES = """\
examples:
  edge task-definition ls
  edge task-definition ls --family app"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--family", metavar="FAMILY", help="only this one")


def run(args: argparse.Namespace) -> int:
    """List them."""
    with opened(args) as fleet:
        found = ls(fleet.database, args.family)
    if args.output == "json":
        print_json({"taskDefinitionArns": [task_definition_arn(one.family, one.revision) for one in found]})
    else:
        print_table(("TASK DEFINITION", "CONTAINERS", "REGISTERED"), [_row(one) for one in found])
    return 0


def _row(found: RegisteredTaskDefinition) -> tuple[str, str, str]:
    containers: list[dict[str, Any]] = found.document.get("containerDefinitions", [])
    return found.key, ", ".join(str(container.get("name")) for container in containers), found.registered_at
