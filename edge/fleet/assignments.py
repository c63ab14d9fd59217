"""What a device should run next, and what a report of it means: decisions without effects.

A task is in the desired state from its start until the device has said that it is STOPPED; a task that should stop
stays in it with `desiredStatus` STOPPED, because a device that was away must still be told why.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edge.errors import InvalidInputError
from edge.model.documents import MAXIMUM_TASKS, DesiredState, DesiredStatus, DesiredTask
from edge.model.secrets import DesiredSecret
from edge.model.service_documents import DesiredSchedule, DesiredService
from edge.model.task import Origin

STOPPED: Final = "STOPPED"
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,255}:[0-9]{1,9}")
MAXIMUM_REASON: Final = 255
"""ECS cuts its reasons there; `DesiredTask.stopped_reason` refuses more."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as the fleet knows it.

    Attributes:
        task_definition: `family:revision`.
        created_revision: The first desired state that had it.
        changed_revision: The first desired state that had its present `desired_status`.
        last_status: As the device said last; empty when it has not spoken of it.
        reported: The ECS task object as the device reported it last.
        origin: `assigned`, or what on the device began it: no desired state names those.
    """

    task_id: str
    cluster: str
    device: str
    task_definition: str
    group: str
    started_by: str
    created_at: str
    created_revision: int
    changed_revision: int
    desired_status: DesiredStatus = DesiredStatus.RUNNING
    stopped_reason: str = ""
    last_status: str = ""
    reported: dict[str, Any] = field(default_factory=dict)
    origin: str = Origin.ASSIGNED.value

    @property
    def is_assigned(self) -> bool:
        """The desired state names it."""
        return self.origin == Origin.ASSIGNED.value

    @property
    def is_over(self) -> bool:
        """It is STOPPED, and stays so whatever is heard later."""
        return self.last_status == STOPPED


def compose(  # noqa: PLR0913 - the parts of the document
    cluster: str,
    device: str,
    revision: int,
    *,
    issued_at: str,
    tasks: Sequence[TaskRecord],
    definitions: Mapping[str, dict[str, Any]],
    services: Sequence[DesiredService] = (),
    schedules: Sequence[DesiredSchedule] = (),
    secrets: Sequence[DesiredSecret] = (),
) -> DesiredState:
    """Return the whole of what the device should run.

    Raises:
        InvalidInputError: There are more tasks than one document may have.
    """
    present = [task for task in tasks if task.is_assigned and not task.is_over]
    named = {one.task_definition for some in (present, services, schedules) for one in some}
    if len(present) > MAXIMUM_TASKS:
        raise InvalidInputError(
            f"device {device} would have {len(present)} tasks; {MAXIMUM_TASKS} is the most",
            hint="Stop some, or use another device.",
        )
    return DesiredState(
        cluster=cluster,
        device=device,
        revision=revision,
        issued_at=issued_at,
        task_definitions={key: definitions[key] for key in sorted(named)},
        tasks=[_desired(task) for task in present],
        services=list(services),
        schedules=list(schedules),
        secrets=list(secrets),
    )


def _desired(task: TaskRecord) -> DesiredTask:
    return DesiredTask(
        task_id=task.task_id,
        task_definition=task.task_definition,
        desired_status=task.desired_status,
        group=task.group,
        started_by=task.started_by,
        created_at=task.created_at,
        stopped_reason=task.stopped_reason,
    )


def after_report(task: TaskRecord, revision: int, tasks: Mapping[str, dict[str, Any]]) -> TaskRecord:
    """Return what is known of a task after its device reported `tasks` with `revision` in force.

    A task that is over stays over. A task that should stop and that the device, obeying that very revision, does not
    have (any more) is over too: it was stopped before it began. So is one that the device began and forgot.
    """
    if task.is_over:
        return task
    found = tasks.get(task.task_id)
    if found is not None:
        return replace(task, last_status=str(found.get("lastStatus", "")), reported=found)
    if not task.is_assigned:
        return over(task, "", "The device has forgotten it")
    if task.desired_status is DesiredStatus.STOPPED and revision >= task.changed_revision:
        return over(task, "UserInitiated", task.stopped_reason)
    return task


def begun_by_device(cluster: str, device: str, found: Mapping[str, Any]) -> TaskRecord | None:
    """Return a task object that a device reported as a task that it began by itself; None when it is no such."""
    origin = found.get("origin")
    key = str(found.get("taskDefinitionArn", "")).rpartition("/")[2]
    if origin not in (Origin.SERVICE, Origin.SCHEDULE, Origin.LOCAL) or not _KEY.fullmatch(key):
        return None
    return TaskRecord(
        task_id=str(found["taskId"]),
        cluster=cluster,
        device=device,
        task_definition=key,
        group=str(found.get("group", ""))[:MAXIMUM_REASON],
        started_by=str(found.get("startedBy", ""))[:MAXIMUM_REASON],
        created_at=str(found.get("createdAt", ""))[:40],
        created_revision=0,
        changed_revision=0,
        last_status=str(found.get("lastStatus", "")),
        reported=dict(found),
        origin=str(origin),
    )


def after_rejection(
    task: TaskRecord, rejected: int, in_force: int, reported: Mapping[str, dict[str, Any]], reason: str
) -> TaskRecord:
    """Return what is known of a task after its device refused the revision `rejected`.

    A refused document is refused whole, and would be so again: the tasks that came after the revision in force never
    began and leave the next one. What the device already runs is untouched.
    """
    came_with_it = in_force < task.created_revision <= rejected
    if task.is_over or not came_with_it or task.task_id in reported:
        return task
    return over(task, "TaskFailedToStart", reason)


def over(task: TaskRecord, stop_code: str, reason: str) -> TaskRecord:
    """Return the task as STOPPED for a reason that the fleet itself knows."""
    told = {"lastStatus": STOPPED, "stopCode": stop_code, "stoppedReason": reason[:MAXIMUM_REASON]}
    return replace(task, last_status=STOPPED, reported={**task.reported, **told})


def stopping(task: TaskRecord, revision: int, reason: str) -> TaskRecord:
    """Return the task as one that should stop from `revision` on; asking twice changes nothing."""
    if task.desired_status is DesiredStatus.STOPPED or task.is_over:
        return task
    return replace(
        task,
        desired_status=DesiredStatus.STOPPED,
        changed_revision=revision,
        stopped_reason=reason[:MAXIMUM_REASON],
    )
