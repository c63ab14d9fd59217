"""`edge task-definition register`."""

import argparse

from edge.cli.definition_file import read_task_definition
from edge.cli.output import print_json
from edge.cli.session import opened
from edge.fleet.clock import now
from edge.fleet.task_definitions import register

HELP = """\
Store an ECS task definition as the next revision of its family. The file is ECS's own JSON: the input of `aws ecs
register-task-definition` or the output of `aws ecs describe-task-definition`. A field that cannot be honoured is
refused by name, never ignored."""
EXAMPLES = """\
examples:
  edge task-definition register app.json
  aws ecs describe-task-definition --task-definition app | edge task-definition register -"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="ECS JSON; - for stdin")


def run(args: argparse.Namespace) -> int:
    """Register it."""
    definition = read_task_definition(args.file)
    with opened(args) as fleet:
        made = register(fleet.database, definition.family, definition.to_wire(), now())
    if args.output == "json":
        print_json(made.to_wire())
    else:
        print(made.key)
    return 0
