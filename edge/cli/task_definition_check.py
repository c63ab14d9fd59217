"""`edge task-definition check`."""

import argparse

from edge.cli.definition_file import read_task_definition
from edge.cli.output import print_json

HELP = """\
Judge an ECS task definition without storing it: every field that cannot be honoured is named with the reason. Needs
no fleet."""
EXAMPLES = """\
examples:
  edge task-definition check app.json && echo fine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="ECS JSON; - for stdin")


def run(args: argparse.Namespace) -> int:
    """Judge it."""
    definition = read_task_definition(args.file)
    document = definition.to_wire()
    if args.output == "json":
        print_json({"taskDefinition": document})
    else:
        containers = document.get("containerDefinitions", [])
        print(f"{definition.family}: good, {len(containers)} container{'s' if len(containers) != 1 else ''}")
    return 0
