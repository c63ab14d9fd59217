"""What the commands `edge telemetry …` have in common."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge.cli.session import add_device_option
from edge.fleet.folder import Fleet
from edge.fleet.telemetry_store import StoredRecord, TelemetryStore


@contextmanager
def telemetry(fleet: Fleet) -> Iterator[TelemetryStore]:
    """Open the fleet's telemetry."""
    store = TelemetryStore(fleet.folder.telemetry)
    try:
        yield store
    finally:
        store.close()


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--device` and `--stream`."""
    add_device_option(parser)
    parser.add_argument("--stream", default="", metavar="STREAM", help="metrics, logs, readings, … (default: all)")


def as_json(record: StoredRecord) -> dict[str, Any]:
    """Return a record as one JSON object."""
    about = {
        "device": record.device,
        "stream": record.stream,
        "epoch": record.epoch,
        "number": record.number,
        "time": record.time or None,
        "timeIsCertain": record.certain,
    }
    return about | {"record": record.body}
