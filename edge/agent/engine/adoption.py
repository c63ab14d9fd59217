"""What the engine has, held against what we know: containers are found again by label, and left alone.

Whatever died in between (this agent, the engine's service, the device), an unchanged container is never made anew.
"""

from typing import assert_never

from edge.agent.engine.ports import EngineStatus, FoundContainer
from edge.model import lifecycle
from edge.model.container_spec import LABEL_CONTAINER, LABEL_DEFINITION_DIGEST, LABEL_TASK_ID
from edge.model.documents import DesiredStatus
from edge.model.task import ContainerStatus, Task


def container_of(found: FoundContainer) -> tuple[str, str]:
    """Return `(task id, container name)` of what was found, empty where a label is missing."""
    return found.labels.get(LABEL_TASK_ID, ""), found.labels.get(LABEL_CONTAINER, "")


def observe(  # noqa: PLR0913 - the facts of one sighting
    task: Task, name: str, found: FoundContainer | None, *, boot_id: str, now: str, ran: float = 0.0
) -> Task:
    """Return the task after its container was seen as `found`, or was not there; it had run for `ran` seconds."""
    known = task.container(name)
    rebooted = known.boot_id not in ("", boot_id)
    if found is None:
        return _absent(task, name, now, rebooted=rebooted)
    if found.labels.get(LABEL_DEFINITION_DIGEST) != task.definition_digest:
        return lifecycle.again(task, name, discard=True)
    match found.status:
        case EngineStatus.RUNNING:
            seen = lifecycle.running(task, name, found.runtime_id, boot_id, found.started_at or now)
            same = known.status is ContainerStatus.RUNNING and known.runtime_id == found.runtime_id
            result = task if same else seen
        case EngineStatus.CREATED:
            task = lifecycle.rebooted(task, name, still_there=True) if rebooted else task
            result = _made(task, name, found, boot_id)
        case EngineStatus.EXITED:
            result = _exited(task, name, found, boot_id=boot_id, now=now, ran=ran, rebooted=rebooted)
        case EngineStatus.GONE_WRONG:
            result = lifecycle.again(task, name, discard=True)
        case _:
            assert_never(found.status)
    return result


def _absent(task: Task, name: str, now: str, *, rebooted: bool) -> Task:
    if rebooted and task.desired_status is DesiredStatus.RUNNING:
        return lifecycle.rebooted(task, name, still_there=False)
    if task.desired_status is DesiredStatus.STOPPED:
        return lifecycle.stopped(task, name, now)
    return lifecycle.vanished(task, name, now)


def _made(task: Task, name: str, found: FoundContainer, boot_id: str) -> Task:
    """Adopt a container that has not run (yet): whatever made it, it has the right labels."""
    container = task.container(name)
    if container.status is ContainerStatus.NONE:
        task = lifecycle.pulled(task, name, found.image_id, "")
    return lifecycle.created(task, name, found.runtime_id, boot_id)


def _exited(  # noqa: PLR0913 - the facts of one sighting
    task: Task, name: str, found: FoundContainer, *, boot_id: str, now: str, ran: float, rebooted: bool
) -> Task:
    if task.container(name).status <= ContainerStatus.PULLED:
        task = _made(task, name, found, boot_id)
    if rebooted and task.desired_status is DesiredStatus.RUNNING:
        return lifecycle.rebooted(task, name, still_there=True)
    return lifecycle.exited(
        task,
        name,
        exit_code=found.exit_code,
        oom_killed=found.oom_killed,
        finished_at=found.finished_at,
        now=now,
        ran=ran,
    )
