"""`edge firmware status`."""

import argparse

from edge.cli.firmware_device import add_options, find_runtimes, find_spool, load_device
from edge.cli.output import print_fields, print_json

HELP = "Show which version of edge runs here, which one has proved itself, and how the last update ended."
EXAMPLES = """\
examples:
  edge firmware status
  edge firmware status --output json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Read and show."""
    from edge.model.runtime_update import told  # noqa: PLC0415 - imported when it runs

    runtimes, spool = find_runtimes(args), find_spool(load_device(args))
    trial, request, result = spool.trial(), spool.request(), spool.result()
    current, good, floor = runtimes.current(), runtimes.good(), spool.floor()
    if args.output == "json":
        print_json(
            {
                "current": current,
                "good": good,
                "floor": floor,
                "trial": trial and trial.to_wire(),
                "request": request and request.to_wire(),
                "result": result and result.to_wire(),
            }
        )
        return 0
    print_fields(
        [
            ("runs", current),
            ("proved itself", good),
            ("nothing older than", floor if floor != "0.0.0" else ""),
            ("on trial", f"{trial.version}, attempt {trial.attempts}, {trial.phase.value}" if trial else ""),
            ("asked for", f"{request.file or (request.ref and request.ref.url)}" if request and not trial else ""),
            ("last update", f"{result.outcome.value} at {result.at}: {told(result)}" if result else ""),
        ]
    )
    return 0
