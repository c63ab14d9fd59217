"""`edge service ls`."""

import argparse
from typing import Any

from edge.cli.output import print_json, print_table
from edge.cli.session import add_device_option, opened
from edge.cli.views import devices_named, objects_in, observe_or_recall, text_of
from edge.fleet.device_work import services_of
from edge.model.service_documents import DesiredService

HELP = "List services: what they should run, what they do run, and how the last deployment went."
EXAMPLES = """\
examples:
  edge service ls
  edge service ls --output json | jq '.services[].deployments'"""
_COLUMNS = ("SERVICE", "DEVICE", "TASK DEFINITION", "RUNNING", "DESIRED", "ROLLOUT", "RUNS", "REASON")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_device_option(parser)


def run(args: argparse.Namespace) -> int:
    """List them."""
    with opened(args) as fleet:
        devices = devices_named(fleet, args.device)
        views = observe_or_recall(args, fleet, devices)
        found = [
            (device.device, service, told.get(service.service_name, {}))
            for device in devices
            for told in [{text_of(one, "serviceName"): one for one in objects_in(views[device.device], "services")}]
            for service in services_of(fleet.database, device)
        ]
    if args.output == "json":
        print_json({"services": [{"device": device, **service.to_wire(), **told} for device, service, told in found]})
    else:
        print_table(_COLUMNS, [_row(*one) for one in found])
    return 0


def _row(device: str, service: DesiredService, told: dict[str, Any]) -> tuple[str, ...]:
    deployments = told.get("deployments")
    primary = deployments[0] if isinstance(deployments, list) and deployments else {}
    return (
        service.service_name,
        device,
        service.task_definition,
        text_of(told, "runningCount"),
        text_of(told, "desiredCount") or str(service.desired_count),
        text_of(primary, "rolloutState") or "not spoken of yet",
        text_of(primary, "taskDefinition").rpartition("/")[2],
        text_of(primary, "rolloutStateReason"),
    )
