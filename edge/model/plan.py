"""What to do next: from what is known of the tasks to the steps that are due. Pure and total.

`plan` says everything that could be done now; what is under way already, or waits for its retry, is taken out by the
one who executes (`busy`). A step carries names only: whoever performs it looks up the task as it is by then.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.model.dependencies import holds_up, waits_for
from edge.model.documents import DesiredStatus
from edge.model.task import Container, ContainerStatus, Task


@dataclass(frozen=True, slots=True)
class FetchImage:
    """Find the container's image in the local store, or pull it."""

    task_id: str
    container: str


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """Make the container, with the task's limits and volumes around it."""

    task_id: str
    container: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Start the container that was made."""

    task_id: str
    container: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Stop the container, if the engine has it, and leave it there to be looked at."""

    task_id: str
    container: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove the container, if the engine has it."""

    task_id: str
    container: str


@dataclass(frozen=True, slots=True)
class ReleaseTask:
    """Remove what the task had besides its containers, volumes and limits, and forget the task."""

    task_id: str


Step = FetchImage | CreateContainer | StartContainer | StopContainer | RemoveContainer | ReleaseTask
StepKey = tuple[str, str]
"""`(task id, container name)`, the name being empty for a step of the whole task: one step at a time for each."""


def key_of(step: Step) -> StepKey:
    """Return what the step works on."""
    return (step.task_id, "" if isinstance(step, ReleaseTask) else step.container)


def plan(tasks: Iterable[Task], *, busy: Collection[StepKey], expired: Collection[str]) -> list[Step]:
    """Return the steps that are due, in the order of the tasks and their containers.

    Args:
        tasks: Everything the device knows.
        busy: What must wait: a step is under way for it, or its retry is not due yet.
        expired: Ids of stopped tasks whose containers have been kept long enough to be looked at.
    """
    steps: list[Step] = []
    for task in tasks:
        steps.extend(step for step in _steps_of(task, expired) if key_of(step) not in busy)
    return steps


def _steps_of(task: Task, expired: Collection[str]) -> Iterable[Step]:
    if task.desired_status is DesiredStatus.RUNNING:
        sources = _volume_sources(task)
        for container in task.containers:
            step = _towards_running(task, container, sources)
            if step is not None:
                yield step
        return
    alive = [c for c in task.containers if c.status is not ContainerStatus.STOPPED]
    if alive:
        for container in alive:
            if not holds_up(task, container.name):
                yield StopContainer(task.task_id, container.name)
    elif task.task_id in expired:
        yield from _clean_up(task)


def _towards_running(task: Task, container: Container, sources: Mapping[str, frozenset[str]]) -> Step | None:
    if container.discard:
        return RemoveContainer(task.task_id, container.name)
    match container.status:
        case ContainerStatus.NONE:
            return FetchImage(task.task_id, container.name)
        case ContainerStatus.PULLED if _made(task, sources[container.name]):
            return CreateContainer(task.task_id, container.name)
        case ContainerStatus.CREATED if not waits_for(task, container.name):
            return StartContainer(task.task_id, container.name)
        case ContainerStatus.PULLED | ContainerStatus.CREATED | ContainerStatus.RUNNING | ContainerStatus.STOPPED:
            return None


def _clean_up(task: Task) -> Iterable[Step]:
    left = [c for c in task.containers if not c.removed]
    for container in left:
        yield RemoveContainer(task.task_id, container.name)
    if not left and not task.wanted:
        yield ReleaseTask(task.task_id)


def _made(task: Task, names: Collection[str]) -> bool:
    return all(c.status >= ContainerStatus.CREATED for c in task.containers if c.name in names)


def _volume_sources(task: Task) -> dict[str, frozenset[str]]:
    """Return, for each container, whose volumes it mounts (`volumesFrom`): those must be made before it."""
    definitions: list[dict[str, Any]] = task.definition.get("containerDefinitions", [])
    return {
        definition["name"]: frozenset(source["sourceContainer"] for source in definition.get("volumesFrom") or ())
        for definition in definitions
    }
