"""`edge device show`."""

import argparse
from collections.abc import Mapping
from typing import Any

from edge.cli.device_ls import as_json, revision_text
from edge.cli.output import print_fields, print_json, print_table
from edge.cli.session import opened
from edge.cli.views import objects_in, observe_or_recall, short, tasks_in, text_of
from edge.fleet.devices import DeviceRecord, the_device
from edge.fleet.observing import DeviceView, rejection_reason
from edge.fleet.watching import reason_of

HELP = """\
Show a device as it said last: connection, certificate, revisions, attributes, clock, resources left, tasks, images, and
what telemetry waits on it."""
EXAMPLES = """\
examples:
  edge device show pi-1"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="may be left out when the fleet has only one")


def run(args: argparse.Namespace) -> int:
    """Show it."""
    with opened(args) as fleet:
        record = the_device(fleet, args.device)
        view = observe_or_recall(args, fleet, [record])[record.device]
    if args.output == "json":
        print_json(as_json(record, view))
        return 0
    print_fields(_fields(record, view))
    _print_tasks(view)
    _print_images(view)
    _print_telemetry(view)
    return 0


def _fields(record: DeviceRecord, view: DeviceView) -> list[tuple[str, str]]:
    birth, report = view.birth, view.report
    attributes = _object(birth, "attributes")
    return [
        ("device", record.device),
        ("cluster", record.cluster),
        ("connection", view.connection),
        ("reason", view.status.reason if view.status else ""),
        ("agent", view.status.agent_version if view.status else ""),
        ("boot id", view.status.boot_id if view.status else ""),
        ("problem", text_of(report, "agentProblem")),
        ("last report", text_of(report, "time")),
        ("clock", text_of(report, "clock")),
        ("revision in force", revision_text(record, view)),
        ("trust bundle", _trust(view)),
        ("not published", _unpublished(record)),
        ("last answer", f"{view.ack.outcome.value} {view.ack.revision or ''}" if view.ack else ""),
        ("refused because", rejection_reason(view.ack) if view.ack and view.ack.errors else ""),
        ("added", record.added_at),
        ("certificate", f"{record.certificate_serial} until {record.certificate_expires_at}"),
        ("resources", _pairs(_object(birth, "registeredResources"))),
        ("remaining", _pairs(_object(report, "remainingResources"))),
        ("not shown", _left_out(report)),
        ("attributes", _pairs(attributes)),
        ("capabilities", ", ".join(str(name) for name in _list(birth, "capabilities"))),
    ]


def _unpublished(record: DeviceRecord) -> str:
    if record.published_revision >= record.revision:
        return ""
    return f"revision {record.revision}: the broker did not take it; `edge fleet publish {record.device}` sends it"


def _trust(view: DeviceView) -> str:
    return "".join(f"{text_of(one, 'version')} {text_of(one, 'problem')}".strip() for one in objects_in(view, "trust"))


def _left_out(report: Mapping[str, Any]) -> str:
    """What the device could not send: a document has a size, and so has its memory of events."""
    parts = {"tasksOmitted": "stopped tasks", "droppedEvents": "events"}
    return ", ".join(f"{report[name]} {what}" for name, what in parts.items() if report.get(name))


def _print_tasks(view: DeviceView) -> None:
    rows = [
        (
            short(text_of(task, "taskId")),
            text_of(task, "taskDefinitionArn").rpartition("/")[2],
            text_of(task, "lastStatus"),
            reason_of(task),
        )
        for task in tasks_in(view)
    ]
    if rows:
        print()
        print_table(("TASK", "TASK DEFINITION", "STATUS", "REASON"), rows)


def _print_images(view: DeviceView) -> None:
    images = [image for image in _list(view.report, "images") if isinstance(image, dict)]
    if images:
        print()
        print_table(
            ("IMAGE", "ID", "ARCHITECTURE"),
            [
                (text_of(image, "reference"), text_of(image, "imageId")[:12], text_of(image, "architecture"))
                for image in images
            ],
        )


def _print_telemetry(view: DeviceView) -> None:
    streams = objects_in(view, "telemetry")
    if streams:
        names = ("stream", "waitingRecords", "waitingBytes", "oldest", "gaps", "damaged", "problem")
        print()
        print_table(
            ("TELEMETRY", "WAITING", "BYTES", "OLDEST", "GAPS", "DAMAGED", "PROBLEM"),
            [tuple(text_of(stream, name) for name in names) for stream in streams],
        )


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
