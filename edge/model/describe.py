"""Tasks as others see them: ECS's task object, the `reported` document, the EventBridge-shaped event."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edge.model.documents import DesiredStatus
from edge.model.health import health_of
from edge.model.identifiers import cluster_arn, container_arn, container_instance_arn, task_arn, task_definition_arn
from edge.model.task import Container, ContainerStatus, Health, Origin, Task, TaskStatus

SHOWN_STATUS: Final[Mapping[ContainerStatus, str]] = {
    ContainerStatus.NONE: "PENDING",
    ContainerStatus.PULLED: "PENDING",
    ContainerStatus.CREATED: "PENDING",
    ContainerStatus.RUNNING: "RUNNING",
    ContainerStatus.STOPPED: "STOPPED",
}
"""As the ECS agent does, only three container states are told to others."""


def describe_task(task: Task, cluster: str, device: str) -> dict[str, Any]:
    """Return the task as `DescribeTasks` has it; empty fields are left out.

    `pendingReason`, `taskId`, `origin`, `imageNote` and `imageCompleteAt` are ours.
    """
    full = {
        "taskArn": task_arn(cluster, task.task_id),
        "taskId": task.task_id,
        "clusterArn": cluster_arn(cluster),
        "containerInstanceArn": container_instance_arn(cluster, device),
        "taskDefinitionArn": _definition_arn(task.definition_key),
        "launchType": "EXTERNAL",
        "desiredStatus": task.desired_status.value,
        "lastStatus": task.last_status.value,
        "stopCode": task.stop_code.value if task.stop_code else None,
        "stoppedReason": task.stopped_reason,
        "group": task.group,
        "startedBy": task.started_by,
        "origin": None if task.origin is Origin.ASSIGNED else task.origin.value,
        "createdAt": task.created_at,
        "pullStartedAt": task.pull_started_at,
        "pullStoppedAt": task.pull_stopped_at,
        "startedAt": task.started_at,
        "stoppingAt": task.stopping_at,
        "stoppedAt": task.stopped_at,
        "healthStatus": None if health_of(task) is Health.NONE else health_of(task).value,
        "version": task.version,
        "pendingReason": task.pending_reason,
        "cpu": task.definition.get("cpu"),
        "memory": task.definition.get("memory"),
        "containers": [_describe_container(c, cluster, task.task_id) for c in task.containers],
    }
    return {name: value for name, value in full.items() if value not in (None, "")}


def _describe_container(container: Container, cluster: str, task_id: str) -> dict[str, Any]:
    full = {
        "containerArn": container_arn(cluster, task_id, container.name),
        "name": container.name,
        "image": container.image,
        "imageDigest": container.image_digest,
        "imageNote": container.image_note,
        "imageCompleteAt": container.image_complete_at,
        "runtimeId": container.runtime_id,
        "lastStatus": SHOWN_STATUS[container.status],
        "exitCode": container.exit_code,
        "healthStatus": None if container.health is Health.NONE else container.health.value,
        "restartCount": container.restarts or None,
        "reason": container.reason or container.pending_reason,
        "startedAt": container.started_at,
        "finishedAt": container.finished_at,
        "networkBindings": [
            {
                "bindIP": "0.0.0.0",  # noqa: S104 - what the engine binds, told as ECS tells it
                "containerPort": port.container_port,
                "hostPort": port.host_port,
                "protocol": port.protocol,
            }
            for port in container.ports
        ],
    }
    return {name: value for name, value in full.items() if value not in (None, "")}


def _definition_arn(key: str) -> str:
    family, _, revision = key.rpartition(":")
    return task_definition_arn(family, int(revision))


def statuses(task: Task) -> tuple[object, ...]:
    """Return what makes an event when it changes; a mere retry reason does not.

    A container that is started again and again does not flood anybody: of its restarts the 1st, 2nd, 4th, 8th … are
    told.
    """
    status = TaskStatus.RUNNING if any(c.restarting for c in task.containers) else task.last_status
    return (task.desired_status, status, health_of(task), tuple(_told_of(c) for c in task.containers))


def _told_of(container: Container) -> tuple[object, ...]:
    if container.restarts and container.status is not ContainerStatus.STOPPED:
        return ("RUNNING", container.restarts.bit_length(), container.health)
    return (SHOWN_STATUS[container.status], container.exit_code, container.health)


def task_event(event_id: str, time: str, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return an `ECS Task State Change` in EventBridge's shape; `detail.version` makes a duplicate harmless."""
    return _event(event_id, time, "ECS Task State Change", description["taskArn"], description)


def deployment_event(event_id: str, time: str, name: str, service: Mapping[str, Any]) -> dict[str, Any]:
    """Return an `ECS Deployment State Change` (`SERVICE_DEPLOYMENT_…`) in EventBridge's shape."""
    deployment = service["deployments"][0]
    kind = "ERROR" if name == "SERVICE_DEPLOYMENT_FAILED" else "INFO"
    detail = {
        "eventType": kind,
        "eventName": name,
        "clusterArn": service["clusterArn"],
        "deploymentId": deployment["id"],
        "updatedAt": time,
        "reason": deployment.get("rolloutStateReason", ""),
        "service": service,
    }
    return _event(event_id, time, "ECS Deployment State Change", service["serviceArn"], detail)


def local_event(event_id: str, time: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Return what somebody did at the device itself, in EventBridge's shape; the detail type is ours."""
    return _event(event_id, time, "Edge Local Action", detail["taskArns"][0], detail)


def _event(event_id: str, time: str, kind: str, resource: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": event_id,
        "detail-type": kind,
        "source": "edge.ecs",
        "account": "",
        "time": time,
        "region": "",
        "resources": [resource],
        "detail": detail,
    }


def remaining_resources(tasks: Iterable[Task], cpu_units: int, memory_mib: int) -> dict[str, Any]:
    """Return what of the device's CPU units, memory (MiB) and ports the unstopped tasks leave."""
    ports: set[int] = set()
    for task in tasks:
        if task.last_status is TaskStatus.STOPPED:
            continue
        cpu, memory = reserved_resources(task.definition)
        cpu_units -= cpu
        memory_mib -= memory
        ports.update(port.host_port for c in task.containers for port in c.ports)
    return {"cpu": cpu_units, "memory": memory_mib, "ports": sorted(ports)}


def reserved_resources(definition: Mapping[str, Any]) -> tuple[int, int]:
    """Return `(CPU units, MiB)` a task reserves: its own sizes, or the sum of its containers', as ECS places it."""
    containers: list[Mapping[str, Any]] = definition.get("containerDefinitions", [])
    cpu = int(definition.get("cpu") or sum(int(c.get("cpu") or 0) for c in containers))
    memory = int(
        definition.get("memory") or sum(int(c.get("memoryReservation") or c.get("memory") or 0) for c in containers)
    )
    return cpu, memory


def applied(tasks: Iterable[Task]) -> bool:
    """Say whether every wanted task has become what it should, or has ended by itself."""
    ours = [task for task in tasks if task.origin is Origin.ASSIGNED]
    return all(task.settled for task in ours if task.wanted or task.desired_status is DesiredStatus.STOPPED)
