"""`dependsOn`: what a container waits for, what can never come, and in which order a task stops. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from edge.model.task import Container, ContainerStatus, Health, Task


def waits_for(task: Task, name: str) -> list[tuple[str, str]]:
    """Return `(container, condition)` of what is not (yet) so."""
    return [
        (target.name, condition) for target, condition in _dependencies(task, name) if not _is_met(target, condition)
    ]


def never_comes(task: Task, name: str) -> str:
    """Say why a container can never start, empty when it still may."""
    for target, condition in _dependencies(task, name):
        if target.status is not ContainerStatus.STOPPED or _is_met(target, condition):
            continue
        ended = f"exited with {target.exit_code}" if target.exit_code is not None else "stopped"
        return f"TaskDependencyError: container {name} depends on {target.name} being {condition}, and it {ended}"
    return ""


def holds_up(task: Task, name: str) -> bool:
    """Say whether a container that waits for this one, or uses it, still runs: it stops first."""
    definitions = _definitions(task)
    return any(
        other.status in (ContainerStatus.RUNNING, ContainerStatus.CREATED)
        and any(one["containerName"] == name for one in definitions[other.name].get("dependsOn") or ())
        for other in task.containers
        if other.name in definitions
    )


def _dependencies(task: Task, name: str) -> Iterator[tuple[Container, str]]:
    for one in _definitions(task).get(name, {}).get("dependsOn") or ():
        yield task.container(one["containerName"]), one["condition"]


def _is_met(target: Container, condition: str) -> bool:
    ended = target.status is ContainerStatus.STOPPED
    match condition:
        case "START":
            ran = ended and (target.exit_code is not None or bool(target.started_at))
            return target.status is ContainerStatus.RUNNING or target.restarting or ran
        case "COMPLETE":
            return ended and target.exit_code is not None
        case "SUCCESS":
            return ended and target.exit_code == 0
        case "HEALTHY":
            return target.status is ContainerStatus.RUNNING and target.health is Health.HEALTHY
        case _:
            # A newer version's word, judged by that version: waiting is the safe answer.
            return False


def _definitions(task: Task) -> dict[str, Mapping[str, Any]]:
    return {definition["name"]: definition for definition in task.definition.get("containerDefinitions", ())}
