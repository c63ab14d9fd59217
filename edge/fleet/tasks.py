"""The tasks in the fleet database, and the revisions of a device's desired state made of them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from edge.errors import InvalidInputError, NotFoundError
from edge.fleet import task_definitions
from edge.fleet.assignments import TaskRecord, after_rejection, after_report, begun_by_device, compose, stopping
from edge.fleet.clock import timestamp
from edge.fleet.database import Database, Row
from edge.fleet.device_work import schedules_of, services_of
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.secrets import seal_for
from edge.model.documents import DESIRED_STATE_TYPE, DesiredStatus
from edge.model.envelope import Signer, seal
from edge.model.secrets import secrets_of

STOPPED_TASKS_KEPT: Final = 1000
"""Of each device, the newest: `edge task describe` can tell of them."""
_LARGEST_JUMP: Final = 1_000_000
"""A device that claims a revision further ahead lies: believing it would use the numbers up."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A desired state that was composed, sealed and stored; publishing it comes after."""

    number: int
    envelope: bytes


Change = Callable[[int, Sequence[TaskRecord]], Iterable[TaskRecord]]
"""From the next revision's number and the device's tasks to the tasks that are new or different."""


def next_revision(  # noqa: PLR0913 - what a revision is made of
    database: Database,
    signers: Sequence[Signer],
    device: DeviceRecord,
    moment: datetime,
    change: Change,
    *,
    work: Callable[[Database], None] = lambda _: None,
) -> Revision:
    """Change a device's tasks, and with `work` its services and schedules, and make its next desired state, or neither.

    The number is stored in the same transaction and before anybody sees the document, so that no number is ever used
    for two documents, whatever happens to this process.

    Raises:
        InvalidInputError: The document would be too large.
        StoreError: It cannot be stored.
    """
    with database.transaction():
        known = find_device(database, device.cluster, device.device)
        # A fleet folder put back from an older copy goes on where the device is.
        number = max(known.revision, known.reported_revision) + 1
        for task in change(number, current_tasks(database, device)):
            _store(database, task)
        work(database)
        _forget_long_over(database, device)
        tasks = current_tasks(database, device)
        services, schedules = services_of(database, device), schedules_of(database, device)
        named = {one.task_definition for some in (tasks, services, schedules) for one in some}
        definitions = {key: task_definitions.find(database, key).document for key in named}
        secrets = {secret for one in definitions.values() for secret in secrets_of(one).values()}
        state = compose(
            device.cluster,
            device.device,
            number,
            issued_at=timestamp(moment),
            tasks=tasks,
            definitions=definitions,
            services=services,
            schedules=schedules,
            secrets=seal_for(database, known, secrets),
        )
        envelope = seal(json.dumps(state.to_wire(), separators=(",", ":")).encode(), DESIRED_STATE_TYPE, signers)
        database.change(
            "UPDATE devices SET revision = ?, desired = ? WHERE cluster = ? AND device = ?",
            (number, envelope, device.cluster, device.device),
        )
    return Revision(number, envelope)


def adding(tasks: Sequence[TaskRecord]) -> Change:
    """Add tasks; their revisions are set to the one that adds them."""

    def change(revision: int, _: Sequence[TaskRecord]) -> Iterable[TaskRecord]:
        return [replace(task, created_revision=revision, changed_revision=revision) for task in tasks]

    return change


def stopping_tasks(task_ids: Sequence[str], reason: str) -> Change:
    """Let tasks stop."""

    def change(revision: int, tasks: Sequence[TaskRecord]) -> Iterable[TaskRecord]:
        return [stopping(task, revision, reason) for task in tasks if task.task_id in task_ids]

    return change


def nothing_new(_: int, __: Sequence[TaskRecord]) -> Iterable[TaskRecord]:
    """Change no task: the next desired state only leaves out what is over."""
    return ()


def mark_published(database: Database, device: DeviceRecord, revision: int) -> None:
    """Remember that the broker has this revision."""
    with database.transaction():
        database.change(
            "UPDATE devices SET published_revision = max(published_revision, ?) WHERE cluster = ? AND device = ?",
            (revision, device.cluster, device.device),
        )


def current_tasks(database: Database, device: DeviceRecord) -> list[TaskRecord]:
    """Return a device's tasks that the desired state names and that are not over, oldest first."""
    return [task for task in _unstopped(database, device) if task.is_assigned]


def _unstopped(database: Database, device: DeviceRecord) -> list[TaskRecord]:
    where = "cluster = ? AND device = ? AND last_status <> 'STOPPED'"
    return _select(database, where, (device.cluster, device.device))


def list_tasks(database: Database, device: str | None = None, *, stopped: bool = False) -> list[TaskRecord]:
    """Return tasks, oldest first: of one device or of all, those that are over only with `stopped`."""
    return _select(
        database, "(device = ? OR ? IS NULL) AND (? OR last_status <> 'STOPPED')", (device, device, int(stopped))
    )


def find_task(database: Database, text: str) -> TaskRecord:
    """Return the task of an id, of the unambiguous beginning of one, or of an ARN.

    Raises:
        InvalidInputError: Several tasks begin like that.
        NotFoundError: None does.
    """
    prefix = text.rsplit("/", 1)[-1].lower()
    found = _select(database, "substr(task_id, 1, ?) = ?", (len(prefix), prefix)) if prefix else []
    if not found:
        raise NotFoundError(f"there is no task {text}", hint="`edge task ls --all` lists all tasks.")
    if len(found) > 1:
        names = ", ".join(task.task_id[:12] for task in found[:5])
        raise InvalidInputError(f"{text} is the beginning of {len(found)} tasks: {names}", hint="Write more digits.")
    return found[0]


def record_report(database: Database, device: DeviceRecord, report: Mapping[str, Any]) -> None:
    """Take over what a device reported."""
    revision = _revision_of(report, find_device(database, device.cluster, device.device).revision)
    known = tasks_by_id(report)
    with database.transaction():
        database.change(
            "UPDATE devices SET reported_revision = ? WHERE cluster = ? AND device = ?",
            (revision, device.cluster, device.device),
        )
        _store_changes(database, device, lambda task: after_report(task, revision, known))
        for found in known.values():
            task = begun_by_device(device.cluster, device.device, found)
            if task is not None:
                _store(database, task)


def record_rejection(
    database: Database, device: DeviceRecord, rejected: int, reason: str, report: Mapping[str, Any]
) -> list[TaskRecord]:
    """Take over that a device refused a revision; returns the tasks that will not begin because of it."""
    in_force = find_device(database, device.cluster, device.device).reported_revision
    known = tasks_by_id(report)
    with database.transaction():
        return _store_changes(database, device, lambda task: after_rejection(task, rejected, in_force, known, reason))


def _revision_of(report: Mapping[str, Any], newest: int) -> int:
    """Return the revision in force, unless no honest device could have it."""
    revision = report.get("revision")
    return revision if isinstance(revision, int) and 0 <= revision <= newest + _LARGEST_JUMP else 0


def tasks_by_id(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a report's task objects by task id; what is no task object is left out."""
    tasks = report.get("tasks")
    found = tasks if isinstance(tasks, list) else []
    return {str(task["taskId"]): task for task in found if isinstance(task, dict) and "taskId" in task}


def _forget_long_over(database: Database, device: DeviceRecord) -> None:
    database.change(
        "DELETE FROM tasks WHERE task_id IN (SELECT task_id FROM tasks WHERE cluster = ? AND device = ?"
        " AND last_status = 'STOPPED' ORDER BY created_at DESC LIMIT -1 OFFSET ?)",
        (device.cluster, device.device, STOPPED_TASKS_KEPT),
    )


def _store_changes(
    database: Database, device: DeviceRecord, judge: Callable[[TaskRecord], TaskRecord]
) -> list[TaskRecord]:
    changed = [after for task in _unstopped(database, device) if (after := judge(task)) != task]
    for task in changed:
        _store(database, task)
    return changed


def _select(database: Database, condition: str, values: Sequence[Any]) -> list[TaskRecord]:
    sql = f"SELECT * FROM tasks WHERE {condition} ORDER BY created_at, task_id"  # noqa: S608 - ours, no input in it
    return [_record(row) for row in database.rows(sql, values)]


def _record(row: Row) -> TaskRecord:
    return TaskRecord(
        task_id=row["task_id"],
        cluster=row["cluster"],
        device=row["device"],
        task_definition=f"{row['family']}:{row['definition_revision']}",
        group=row["task_group"],
        started_by=row["started_by"],
        created_at=row["created_at"],
        created_revision=row["created_revision"],
        changed_revision=row["changed_revision"],
        desired_status=DesiredStatus(row["desired_status"]),
        stopped_reason=row["stopped_reason"],
        last_status=row["last_status"],
        reported=json.loads(row["reported"]),
        origin=row["origin"],
    )


def _store(database: Database, task: TaskRecord) -> None:
    family, _, definition_revision = task.task_definition.rpartition(":")
    database.change(
        "INSERT INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " changed_revision = excluded.changed_revision, desired_status = excluded.desired_status,"
        " stopped_reason = excluded.stopped_reason, last_status = excluded.last_status, reported = excluded.reported",
        (
            task.task_id,
            task.cluster,
            task.device,
            family,
            int(definition_revision),
            task.group,
            task.started_by,
            task.created_at,
            task.created_revision,
            task.changed_revision,
            task.desired_status.value,
            task.stopped_reason,
            task.last_status,
            json.dumps(task.reported),
            task.origin,
        ),
    )
