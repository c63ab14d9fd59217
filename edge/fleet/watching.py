"""Following the life of tasks by what their device says, message by message; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.fleet.messages import EventHappened, FleetMessage, Reported
from edge.fleet.tasks import tasks_by_id

Detail = Mapping[str, Any]
"""An ECS task object."""


@dataclass(frozen=True, slots=True)
class Update:
    """Something about a task is different now; `text` says what, for a person."""

    task_id: str
    status: str
    text: str
    detail: Detail


class TaskWatch:
    """Remembers how each task was, and says what changed.

    Events and reports tell of the same tasks by two ways, so one may be older than the other: `version` decides, and
    a task that is STOPPED is not revived by what comes late.
    """

    def __init__(self, task_ids: Sequence[str]) -> None:
        self._details: dict[str, Detail | None] = dict.fromkeys(task_ids)
        self._shown: dict[str, tuple[str, str]] = {}

    def feed(self, message: FleetMessage) -> list[Update]:
        """Take a message and return what it changed."""
        match message:
            case EventHappened(kind="task", event={"detail": dict() as detail}):
                return self._take([detail])
            case Reported(document=document):
                return self._take(list(tasks_by_id(document).values()))
            case _:
                return []

    def detail(self, task_id: str) -> Detail:
        """Return the task as last heard of; empty when nothing was heard."""
        return self._details[task_id] or {}

    def status(self, task_id: str) -> str:
        """Return its last status; empty when nothing was heard."""
        return str(self.detail(task_id).get("lastStatus", ""))

    def all_in(self, *statuses: str) -> bool:
        """Each task has one of these statuses."""
        return all(self.status(task_id) in statuses for task_id in self._details)

    def _take(self, details: Sequence[Detail]) -> list[Update]:
        updates = [self._one(str(detail.get("taskId", "")), detail) for detail in details]
        return [update for update in updates if update is not None]

    def _one(self, task_id: str, detail: Detail) -> Update | None:
        if task_id not in self._details or self._is_older(task_id, detail):
            return None
        self._details[task_id] = detail
        status, text = str(detail.get("lastStatus", "")), reason_of(detail)
        if self._shown.get(task_id) == (status, text):
            return None
        self._shown[task_id] = (status, text)
        return Update(task_id, status, text, detail)

    def _is_older(self, task_id: str, detail: Detail) -> bool:
        known = self._details[task_id]
        if known is None:
            return False
        if known.get("lastStatus") == "STOPPED" and detail.get("lastStatus") != "STOPPED":
            return True
        return _version(detail) < _version(known)


def reason_of(detail: Detail) -> str:
    """Say in one line why a task is where it is; empty when nothing hinders it.

    >>> reason_of({"lastStatus": "STOPPED", "stopCode": "UserInitiated", "stoppedReason": "not needed"})
    'UserInitiated: not needed'
    """
    if detail.get("lastStatus") == "STOPPED":
        parts = [str(detail.get(name) or "") for name in ("stopCode", "stoppedReason")]
        return ": ".join(part for part in parts if part)
    return str(detail.get("pendingReason") or "")


def containers_of(detail: Detail) -> list[Detail]:
    """Return the task's containers; what is none is left out."""
    containers = detail.get("containers")
    return [found for found in containers if isinstance(found, dict)] if isinstance(containers, list) else []


def container_line(container: Detail) -> str:
    """Say in one line how a container is.

    >>> container_line({"name": "app", "lastStatus": "STOPPED", "exitCode": 137, "reason": "OutOfMemoryError"})
    'app: STOPPED, exit code 137, OutOfMemoryError'
    """
    parts = [str(container.get("lastStatus") or "")]
    if container.get("exitCode") is not None:
        parts.append(f"exit code {container['exitCode']}")
    if container.get("reason"):
        parts.append(str(container["reason"]))
    return f"{container.get('name', '?')}: {', '.join(part for part in parts if part)}"


def ran_to_its_end(detail: Detail) -> bool:
    """It did run and every container ended with 0: a job that is done, not a failure."""
    containers = containers_of(detail)
    return (
        bool(detail.get("startedAt")) and bool(containers) and all(found.get("exitCode") == 0 for found in containers)
    )


def _version(detail: Detail) -> int:
    version = detail.get("version")
    return version if isinstance(version, int) else 0
