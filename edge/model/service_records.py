"""Services and schedules as the device's own store keeps them, and as others see them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edge.model.identifiers import cluster_arn, service_arn, task_definition_arn
from edge.model.schedule import ScheduleRecord
from edge.model.service import Deployment, PinnedImage, RolloutState, Service
from edge.model.service_documents import DesiredSchedule, DesiredService
from edge.model.task import Task, TaskStatus


def service_to_bytes(service: Service) -> bytes:
    """Return the service for the store."""
    deployments = {name: _deployment_to_json(getattr(service, name)) for name in ("deployment", "healthy", "former")}
    document = {
        "name": service.name,
        "desired": service.desired.to_wire(),
        **deployments,
        "refused": service.refused,
        "failures": service.failures,
        "wanted": service.wanted,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def service_from_bytes(data: bytes) -> Service:
    """Return the service `service_to_bytes` wrote.

    Raises:
        ValueError, KeyError, TypeError: It was not written by `service_to_bytes`.
    """
    document = json.loads(data)
    deployment = _deployment_from_json(document["deployment"])
    if deployment is None:
        raise ValueError("a service without a deployment")
    return Service(
        name=document["name"],
        desired=DesiredService.model_validate(document["desired"]),
        deployment=deployment,
        healthy=_deployment_from_json(document["healthy"]),
        former=_deployment_from_json(document["former"]),
        refused=tuple(document["refused"]),
        failures=document["failures"],
        wanted=document["wanted"],
    )


def schedule_to_bytes(record: ScheduleRecord) -> bytes:
    """Return the schedule for the store."""
    document = {**asdict(record), "desired": record.desired.to_wire()}
    return json.dumps(document, separators=(",", ":")).encode()


def schedule_from_bytes(data: bytes) -> ScheduleRecord:
    """Return the schedule `schedule_to_bytes` wrote; raises as `service_from_bytes`."""
    document = json.loads(data)
    return ScheduleRecord(**{**document, "desired": DesiredSchedule.model_validate(document["desired"])})


def describe_service(service: Service, tasks: Sequence[Task], cluster: str) -> dict[str, Any]:
    """Return the service as `DescribeServices` has it; `healthyTaskDefinition` and `failures` are ours."""
    deployments = [service.deployment]
    if service.healthy is not None and service.healthy.deployment_id != service.deployment.deployment_id:
        deployments.append(service.healthy)
    running, pending = _counts(tasks)
    return {
        "serviceArn": service_arn(cluster, service.name),
        "serviceName": service.name,
        "clusterArn": cluster_arn(cluster),
        "status": "ACTIVE" if service.wanted else "DRAINING",
        "launchType": "EXTERNAL",
        "schedulingStrategy": service.desired.scheduling_strategy,
        "taskDefinition": _definition_arn(service.desired.task_definition),
        "desiredCount": service.count,
        "runningCount": running,
        "pendingCount": pending,
        "failures": service.failures,
        "deployments": [_describe_deployment(one, service, tasks) for one in deployments],
    }


def describe_schedule(record: ScheduleRecord, following: str) -> dict[str, Any]:
    """Return the schedule with what was handled and what comes next, RFC 3339; empty when nothing does."""
    told = {
        "name": record.desired.name,
        "scheduleExpression": record.desired.schedule_expression,
        "scheduleExpressionTimezone": record.desired.schedule_expression_timezone,
        "state": record.desired.state,
        "taskDefinition": _definition_arn(record.desired.task_definition),
        "handledUntil": record.handled,
        "nextTime": following,
        "missed": record.missed,
    }
    return {name: value for name, value in told.items() if value != ""}


def _describe_deployment(deployment: Deployment, service: Service, tasks: Sequence[Task]) -> dict[str, Any]:
    running, pending = _counts([task for task in tasks if task.started_by == deployment.deployment_id])
    primary = deployment is service.deployment
    told = {
        "id": deployment.deployment_id,
        "status": "PRIMARY" if primary else "ACTIVE",
        "taskDefinition": _definition_arn(deployment.definition_key),
        "desiredCount": service.count if primary else 0,
        "runningCount": running,
        "pendingCount": pending,
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at,
        "rolloutState": deployment.rollout.value,
        "rolloutStateReason": deployment.reason,
    }
    return {name: value for name, value in told.items() if value != ""}


def _counts(tasks: Sequence[Task]) -> tuple[int, int]:
    statuses = [task.last_status for task in tasks]
    return statuses.count(TaskStatus.RUNNING), statuses.count(TaskStatus.PENDING)


def _definition_arn(key: str) -> str:
    family, _, revision = key.rpartition(":")
    return task_definition_arn(family, int(revision))


def _deployment_to_json(deployment: Deployment | None) -> dict[str, Any] | None:
    if deployment is None:
        return None
    fields = {name: getattr(deployment, name) for name in Deployment.__slots__}
    images = [asdict(image) for image in deployment.images]
    return {**fields, "definition": dict(deployment.definition), "images": images, "rollout": deployment.rollout.value}


def _deployment_from_json(document: Mapping[str, Any] | None) -> Deployment | None:
    if document is None:
        return None
    images = tuple(PinnedImage(**image) for image in document["images"])
    return Deployment(**{**document, "images": images, "rollout": RolloutState(document["rollout"])})
