"""`edge firmware status`."""

import argparse
from typing import Any

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
    from edge.firmware.image_bundle import image_status  # noqa: PLC0415 - imported when it runs

    image = image_status()
    runtime = _runtime(args, needed=image is None)
    if args.output == "json":
        print_json({**runtime, "image": image})
        return 0
    print_fields([*_words(args, runtime), *_slots(image or {})])
    return 0


def _runtime(args: argparse.Namespace, *, needed: bool) -> dict[str, Any]:
    """What is known of the versions; before a device has its identity there is no state to read."""
    if not needed and not args.config.exists():
        runtimes = find_runtimes(args)
        return {"current": runtimes.current(), "good": runtimes.good()}
    runtimes, spool = find_runtimes(args), find_spool(load_device(args))
    found = {"trial": spool.trial(), "request": spool.request(), "result": spool.result()}
    documents = {name: document and document.to_wire() for name, document in found.items()}
    return {"current": runtimes.current(), "good": runtimes.good(), "floor": spool.floor(), **documents}


def _words(args: argparse.Namespace, runtime: dict[str, Any]) -> list[tuple[str, str]]:
    from edge.model.runtime_update import told  # noqa: PLC0415 - imported when it runs

    floor = runtime.get("floor", "0.0.0")
    fields = [
        ("runs", runtime["current"]),
        ("proved itself", runtime["good"]),
        ("nothing older than", floor if floor != "0.0.0" else ""),
    ]
    if not args.config.exists():
        return [*fields, ("identity", "none yet")]
    spool = find_spool(load_device(args))
    trial, request, result = spool.trial(), spool.request(), spool.result()
    return [
        *fields,
        ("on trial", f"{trial.version}, attempt {trial.attempts}, {trial.phase.value}" if trial else ""),
        ("asked for", f"{request.file or (request.ref and request.ref.url)}" if request and not trial else ""),
        ("last update", f"{result.outcome.value} at {result.at}: {told(result)}" if result else ""),
    ]


def _slots(image: dict[str, Any]) -> list[tuple[str, str]]:
    slots = [(name, slot) for one in image.get("slots", ()) for name, slot in one.items() if slot.get("bootname")]
    rows = [
        (f"slot {slot['bootname']}", f"{slot.get('state', '')}, {slot.get('boot_status', '')} ({name})")
        for name, slot in slots
    ]
    return [("image for", str(image.get("compatible", ""))), *rows]
