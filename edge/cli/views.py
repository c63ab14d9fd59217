"""What is known of devices and tasks, put together for showing."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from edge.cli.output import note
from edge.cli.session import connected
from edge.errors import BrokerUnavailableError
from edge.fleet.assignments import TaskRecord
from edge.fleet.devices import DeviceRecord, find_device, list_devices
from edge.fleet.folder import Fleet
from edge.fleet.observing import DeviceView, observe
from edge.fleet.tasks import tasks_by_id
from edge.model.identifiers import cluster_arn, container_instance_arn, task_arn, task_definition_arn


def observe_or_recall(args: argparse.Namespace, fleet: Fleet, devices: Sequence[DeviceRecord]) -> dict[str, DeviceView]:
    """Ask the broker what devices said last; when it is away, say so and go by what was known before."""
    if not devices:
        return {}
    try:
        with connected(args, fleet) as link:
            return observe(link, fleet, devices)
    except BrokerUnavailableError as error:
        note(f"edge: {error}; this is what was known before")
        return {record.device: DeviceView() for record in devices}


def tasks_in(view: DeviceView) -> list[dict[str, Any]]:
    """Return the task objects a device reported."""
    return list(tasks_by_id(view.report).values())


def task_object(task: TaskRecord) -> dict[str, Any]:
    """Return a task as ECS describes one: what the fleet asked for, and over it what the device reported."""
    family, _, revision = task.task_definition.rpartition(":")
    asked: dict[str, Any] = {
        "taskArn": task_arn(task.cluster, task.task_id),
        "taskId": task.task_id,
        "clusterArn": cluster_arn(task.cluster),
        "containerInstanceArn": container_instance_arn(task.cluster, task.device),
        "taskDefinitionArn": task_definition_arn(family, int(revision)),
        "group": task.group,
        "startedBy": task.started_by,
        "createdAt": task.created_at,
        "lastStatus": task.last_status or "PROVISIONING",
        "pendingReason": "" if task.last_status else "The device has not spoken of it yet",
        "containers": [],
    }
    return {**asked, **task.reported, "desiredStatus": task.desired_status.value}


def objects_in(view: DeviceView, name: str) -> list[dict[str, Any]]:
    """Return the objects a device reported in a list of that name; what is none is left out."""
    found = view.report.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def devices_named(fleet: Fleet, name: str | None) -> list[DeviceRecord]:
    """Return the device of that name, or all when none is named."""
    return [find_device(fleet.database, fleet.settings.cluster, name)] if name else list_devices(fleet.database)


def short(task_id: str) -> str:
    """Shorten a task id; commands take the beginning of one."""
    return task_id[:12]


def text_of(detail: Mapping[str, Any], name: str) -> str:
    """Return a field as text, empty when it is not there."""
    value = detail.get(name)
    return "" if value is None else str(value)
