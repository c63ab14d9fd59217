"""`edge device ls`."""

import argparse
from typing import Any

from edge.cli.output import print_json, print_table
from edge.cli.session import opened
from edge.cli.views import observe_or_recall, tasks_in
from edge.fleet.devices import DeviceRecord, list_devices
from edge.fleet.observing import DeviceView

HELP = "List the fleet's devices, whether their agents are connected, and what they run."
EXAMPLES = """\
examples:
  edge device ls
  edge device ls --output json"""
_COLUMNS = ("DEVICE", "STATE", "RUNNING", "REVISION", "AGENT", "REPORTED", "CERTIFICATE UNTIL")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""
    del parser


def run(args: argparse.Namespace) -> int:
    """List them."""
    with opened(args) as fleet:
        devices = list_devices(fleet.database)
        views = observe_or_recall(args, fleet, devices)
    if args.output == "json":
        print_json([as_json(record, views[record.device]) for record in devices])
    else:
        print_table(_COLUMNS, [_row(record, views[record.device]) for record in devices])
    return 0


def as_json(record: DeviceRecord, view: DeviceView) -> dict[str, Any]:
    """Return a device as one object."""
    return {
        "cluster": record.cluster,
        "device": record.device,
        "connection": view.connection,
        "agentVersion": view.status.agent_version if view.status else None,
        "addedAt": record.added_at,
        "certificateSerial": record.certificate_serial,
        "certificateExpiresAt": record.certificate_expires_at,
        "desiredRevision": record.revision,
        "publishedRevision": record.published_revision,
        "acknowledgement": view.ack.to_wire() if view.ack else None,
        "birth": view.birth,
        "reported": view.report,
    }


def _row(record: DeviceRecord, view: DeviceView) -> tuple[str, ...]:
    running = sum(task.get("lastStatus") == "RUNNING" for task in tasks_in(view))
    return (
        record.device,
        view.connection,
        str(running),
        revision_text(record, view),
        view.status.agent_version if view.status else "",
        str(view.report.get("time", "")),
        record.certificate_expires_at[:10],
    )


def revision_text(record: DeviceRecord, view: DeviceView) -> str:
    """Say which revision is in force, and which one should be.

    `3` when they are the same, `2 of 3` while the device is behind.
    """
    in_force = view.report.get("revision", 0)
    return str(in_force) if in_force == record.revision else f"{in_force} of {record.revision}"
