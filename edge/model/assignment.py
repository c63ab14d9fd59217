"""From a judged desired state to the tasks a device has: who is new, who should stop, who is no longer wanted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edge.model.documents import DesiredStatus, DesiredTask
from edge.model.lifecycle import stop
from edge.model.secrets import DesiredSecret
from edge.model.service_documents import DesiredSchedule, DesiredService
from edge.model.task import Container, Origin, StopCode, Task

ABSENT_REASON = "Task is no longer in the desired state"
STOPPED_BY_OPERATOR_REASON = "Task stopped by the operator"


@dataclass(frozen=True, slots=True)
class AcceptedDefinition:
    """A task definition that was judged and found good, in its normalized form."""

    wire: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """A desired state that was verified and judged: nothing in it can be refused any more."""

    revision: int
    tasks: tuple[DesiredTask, ...]
    definitions: Mapping[str, AcceptedDefinition]
    services: tuple[DesiredService, ...] = ()
    schedules: tuple[DesiredSchedule, ...] = ()
    secrets: tuple[DesiredSecret, ...] = ()


def assign(tasks: Mapping[str, Task], assignment: Assignment, now: str) -> dict[str, Task]:
    """Return the tasks, by id, after the assignment came into force.

    A task that runs and is still wanted is the same afterwards. One that has stopped stays stopped. One that the
    device does not know is made even when it should be stopped: its containers may still be there. Tasks that the
    device made itself are not touched.
    """
    wanted = {desired.task_id: desired for desired in assignment.tasks}
    result = {task_id: _adjust(task, wanted.get(task_id), now) for task_id, task in tasks.items()}
    for desired in assignment.tasks:
        if desired.task_id not in result:
            task = new_task(desired, assignment.definitions[desired.task_definition], now)
            result[desired.task_id] = _adjust(task, desired, now)
    return result


def new_task(desired: DesiredTask, definition: AcceptedDefinition, now: str) -> Task:
    """Return the task as it begins."""
    containers: Iterable[Mapping[str, Any]] = definition.wire["containerDefinitions"]
    return Task(
        task_id=desired.task_id,
        definition_key=desired.task_definition,
        definition_digest=definition.digest,
        definition=definition.wire,
        containers=tuple(
            Container(name=c["name"], image=c["image"], essential=c.get("essential", True)) for c in containers
        ),
        group=desired.group or f"family:{desired.task_definition.rpartition(':')[0]}",
        started_by=desired.started_by,
        created_at=desired.created_at or now,
    )


def device_task(  # noqa: PLR0913 - what a task is
    origin: Origin, task_id: str, key: str, definition: AcceptedDefinition, *, group: str, started_by: str, now: str
) -> Task:
    """Return a task that the device itself begins; revision 0 in `key` is a definition nobody registered."""
    desired = DesiredTask.model_construct(
        task_id=task_id, task_definition=key, group=group, started_by=started_by, created_at=now
    )
    return replace(new_task(desired, definition, now), origin=origin, wanted=False)


def _adjust(task: Task, desired: DesiredTask | None, now: str) -> Task:
    if desired is None and task.origin is not Origin.ASSIGNED:
        return task
    if desired is None:
        return stop(replace(task, wanted=False), now, StopCode.USER_INITIATED, ABSENT_REASON)
    task = replace(task, wanted=True)
    match desired.desired_status:
        case DesiredStatus.RUNNING:
            return task
        case DesiredStatus.STOPPED:
            reason = desired.stopped_reason or STOPPED_BY_OPERATOR_REASON
            return stop(task, now, StopCode.USER_INITIATED, reason)
