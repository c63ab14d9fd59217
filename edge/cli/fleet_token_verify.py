"""`edge fleet token verify`."""

import argparse

from edge.cli.output import print_fields, print_json
from edge.cli.session import opened, read_file
from edge.fleet.clock import now
from edge.fleet.task_tokens import verify_token
from edge.model.task_identity import DEFAULT_AUDIENCE

HELP = """\
Verify the token of a task (docs/task-identity.md), read from a file or standard input: signed by a device of this fleet
that is not revoked, for this audience, and still good. Exit 5 when it is not."""
EXAMPLES = """\
examples:
  edge fleet token verify - < token
  edge fleet token verify token --audience billing --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", metavar="FILE", help="where the token is; - is standard input")
    parser.add_argument("--audience", default=DEFAULT_AUDIENCE, metavar="TEXT", help="for whom it must be (edge)")


def run(args: argparse.Namespace) -> int:
    """Verify it."""
    token = read_file(args.file).decode(errors="replace").strip()
    with opened(args) as fleet:
        claims = verify_token(fleet, token, args.audience, now())
    if args.output == "json":
        print_json({"claims": claims})
    else:
        print_fields([(name, str(value)) for name, value in claims.items()])
    return 0
