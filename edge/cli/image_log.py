"""`edge image log`."""

import argparse
from datetime import UTC, datetime

from edge.cli.image_socket import add_socket
from edge.cli.output import print_json

HELP = "Show what the image service had to say lately: what became complete, what went wrong and what it did instead."
EXAMPLES = """\
examples:
  edge image log"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_socket(parser)


def run(args: argparse.Namespace) -> int:
    """Show it."""
    from edge.image_service import ask  # noqa: PLC0415 - imported when it runs

    notes = ask(args.socket, op="notes")
    if args.output == "json":
        print_json(notes)
        return 0
    for note in notes:
        print(f"{datetime.fromtimestamp(note['time'], UTC).isoformat(timespec='seconds')} {note['text']}")
    return 0
