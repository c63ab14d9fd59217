"""A task and its containers as a device knows them: frozen values, and how they are kept as JSON.

The words are the ECS agent's: a container goes NONE -> PULLED -> CREATED -> RUNNING -> STOPPED, a task is as far as
its slowest container, and only PENDING, RUNNING and STOPPED are told to others.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum, StrEnum
from typing import Any, Final

from edge.model.documents import DesiredStatus

MAXIMUM_REASON: Final = 255
"""ECS cuts a container's `reason` at 255 characters; ours is cut there too."""


class ContainerStatus(IntEnum):
    """How far a container has come; the order is the order of its life."""

    NONE = 0
    PULLED = 1
    CREATED = 2
    RUNNING = 3
    STOPPED = 4


class TaskStatus(StrEnum):
    """`lastStatus` of a task, as far as an external instance uses it."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class StopCode(StrEnum):
    """Why a task stopped, in ECS's words."""

    TASK_FAILED_TO_START = "TaskFailedToStart"
    ESSENTIAL_CONTAINER_EXITED = "EssentialContainerExited"
    USER_INITIATED = "UserInitiated"
    SERVICE_SCHEDULER_INITIATED = "ServiceSchedulerInitiated"


class Health(StrEnum):
    """What health checks say; NONE: there are none."""

    NONE = "NONE"
    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"


class Origin(StrEnum):
    """Who made a task."""

    ASSIGNED = "assigned"
    """The desired state names it."""
    SERVICE = "service"
    SCHEDULE = "schedule"
    LOCAL = "local"
    """Somebody at the device."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host port that was decided for a container port."""

    container_port: int
    host_port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a task.

    Attributes:
        image: The reference as the task definition has it.
        image_id, image_digest: What `image` meant when the task began; a later pull of the tag changes nothing.
        health: As its checks say since it last started; NONE without checks.
        restarts: How often its restart policy has started it again.
        quick_ends: How often in a row it ended before its policy's period was over; makes the next start wait.
        pinned: `image_digest` was decided before the task began: that image and no other is fetched.
        runtime_id: The engine's id; empty until created.
        boot_id: The boot in which it was last created or started; decides whether an exit was a crash or a reboot.
        ports: Chosen before it is created, and kept for the container's life.
        discard: What the engine has under its name must be removed before it is created (again).
        removed: It was cleaned away after the task stopped.
        reason: `Name: message`, why it is not running; empty when there is nothing to say.
        pending_reason: Why it is not further yet, while a retry is due.
        image_note: Why its image was fetched whole before it started; empty when it was not, or nobody tried.
        image_complete_at: When all of its image had arrived, if it was started before that.
    """

    name: str
    image: str
    essential: bool = True
    status: ContainerStatus = ContainerStatus.NONE
    image_id: str = ""
    image_digest: str = ""
    runtime_id: str = ""
    boot_id: str = ""
    ports: tuple[HostPort, ...] = ()
    discard: bool = False
    removed: bool = False
    exit_code: int | None = None
    reason: str = ""
    pending_reason: str = ""
    started_at: str = ""
    finished_at: str = ""
    image_note: str = ""
    image_complete_at: str = ""
    pinned: bool = False
    health: Health = Health.NONE
    restarts: int = 0
    quick_ends: int = 0

    @property
    def restarting(self) -> bool:
        """It ran, ended, and is to be started again."""
        return self.status is ContainerStatus.CREATED and self.restarts > 0

    @property
    def reference(self) -> str:
        """What is fetched: `image`, or its very digest where that is decided."""
        if not self.pinned or not self.image_digest or "@" in self.image:
            return self.image
        repository, colon, tag = self.image.rpartition(":")
        return f"{repository if colon and '/' not in tag else self.image}@{self.image_digest}"


@dataclass(frozen=True, slots=True)
class Task:
    """One task on this device.

    Attributes:
        definition_key: `family:revision`.
        definition: The task definition's normalized ECS JSON; the task keeps its own, whatever later revisions carry.
        definition_digest: Of `definition`; with the task id it decides whether a container found is ours.
        desired_status: What should become of it, a terminal stop of its own included.
        wanted: The desired state in force names it; what is not wanted and cleaned away is forgotten.
        origin: Who made it; the desired state has no say about a task it did not bring.
        noted: Its service has taken note that it ended.
        version: Grows by one with every change that others can see.
    """

    task_id: str
    definition_key: str
    definition_digest: str
    definition: Mapping[str, Any] = field(repr=False)
    containers: tuple[Container, ...]
    desired_status: DesiredStatus = DesiredStatus.RUNNING
    wanted: bool = True
    origin: Origin = Origin.ASSIGNED
    noted: bool = False
    group: str = ""
    started_by: str = ""
    created_at: str = ""
    pull_started_at: str = ""
    pull_stopped_at: str = ""
    started_at: str = ""
    stopping_at: str = ""
    stopped_at: str = ""
    stop_code: StopCode | None = None
    stopped_reason: str = ""
    version: int = 1

    def container(self, name: str) -> Container:
        """Return the container of that name.

        Raises:
            KeyError: The task has none.
        """
        for container in self.containers:
            if container.name == name:
                return container
        raise KeyError(name)

    def with_container(self, changed: Container) -> "Task":
        """Return the task with the container of that name replaced."""
        return replace(self, containers=tuple(changed if c.name == changed.name else c for c in self.containers))

    @property
    def last_status(self) -> TaskStatus:
        """How far the task is: RUNNING when every container runs or, not being essential, has run."""
        lowest = min(container.status for container in self.containers)
        if lowest is ContainerStatus.STOPPED:
            return TaskStatus.STOPPED
        return TaskStatus.RUNNING if lowest is ContainerStatus.RUNNING else TaskStatus.PENDING

    @property
    def settled(self) -> bool:
        """Whether it has become what it should: running as wanted, or stopped for good."""
        lowest = min(container.status for container in self.containers)
        stopping = self.desired_status is DesiredStatus.STOPPED
        return lowest is ContainerStatus.STOPPED or (lowest is ContainerStatus.RUNNING and not stopping)

    @property
    def pending_reason(self) -> str:
        """Why it is not further, of the first container that waits; empty when nothing does."""
        return next((c.pending_reason for c in self.containers if c.pending_reason), "")


def task_to_json(task: Task) -> dict[str, Any]:
    """Return the task as a JSON object for the device's own store."""
    return asdict(replace(task, definition=dict(task.definition)))


def task_from_json(data: Mapping[str, Any]) -> Task:
    """Return the task `task_to_json` wrote; fields of an older version that are missing take their defaults.

    Raises:
        KeyError, TypeError, ValueError: It was not written by `task_to_json`.
    """
    containers = tuple(
        Container(
            **{
                **container,
                "status": ContainerStatus(container["status"]),
                "health": Health(container.get("health", Health.NONE)),
                "ports": tuple(HostPort(**port) for port in container.get("ports", ())),
            }
        )
        for container in data["containers"]
    )
    code = data.get("stop_code")
    changed = {
        "containers": containers,
        "desired_status": DesiredStatus(data["desired_status"]),
        "origin": Origin(data.get("origin", Origin.ASSIGNED)),
        "stop_code": StopCode(code) if code else None,
    }
    return Task(**{**data, **changed})


def cut_reason(reason: str) -> str:
    """Return the reason within ECS's length, marked where it was cut."""
    return reason if len(reason) <= MAXIMUM_REASON else reason[: MAXIMUM_REASON - 1] + "…"
