"""What happened to a container, and what that makes of its task: pure transitions, each `(task, fact) -> task`.

A container's status only moves forward while its task lives, with two exceptions that are facts about the world:
a reboot (what ran is not running, and should) and an engine that lost a container that never ran. STOPPED is final.
"""

from collections.abc import Collection
from dataclasses import replace

from edge.model.documents import DesiredStatus
from edge.model.task import Container, ContainerStatus, Health, StopCode, Task, TaskStatus, cut_reason
from edge.model.task_definition_life import RestartPolicy

EXITED_REASON = "Essential container in task exited"
VANISHED_REASON = "ContainerVanishedError: the container was removed by somebody else"
OUT_OF_MEMORY_REASON = "OutOfMemoryError: Container killed due to memory usage"


def pulled(task: Task, name: str, image_id: str, image_digest: str, note: str = "") -> Task:
    """The image is in the local store; a container that is past this stage is left alone."""
    container = task.container(name)
    if container.status is not ContainerStatus.NONE:
        return task
    return task.with_container(
        replace(
            container,
            status=ContainerStatus.PULLED,
            image_id=image_id,
            image_digest=image_digest,
            image_note=note,
            pending_reason="",
        )
    )


def images_complete(task: Task, complete: Collection[str], now: str) -> Task:
    """Of these images (their ids), which may be used before they have arrived, everything has."""
    for container in task.containers:
        if not container.image_complete_at and container.image_id in complete:
            task = task.with_container(replace(container, image_complete_at=now))
    return task


def created(task: Task, name: str, runtime_id: str, boot_id: str) -> Task:
    """The engine has the container; it does not run yet."""
    container = task.container(name)
    if container.status >= ContainerStatus.CREATED:
        return task
    return task.with_container(
        replace(
            container,
            status=ContainerStatus.CREATED,
            runtime_id=runtime_id,
            boot_id=boot_id,
            discard=False,
            pending_reason="",
        )
    )


def running(task: Task, name: str, runtime_id: str, boot_id: str, started_at: str) -> Task:
    """The container runs. Seen on a container that was thought stopped, it runs all the same and must be stopped."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED and task.desired_status is DesiredStatus.RUNNING:
        return task
    now_running = replace(
        container,
        status=ContainerStatus.RUNNING,
        runtime_id=runtime_id,
        boot_id=boot_id,
        started_at=started_at,
        discard=False,
        pending_reason="",
        health=Health.UNKNOWN if has_check(task, name) else Health.NONE,
    )
    return _settle(task.with_container(now_running), started_at)


def has_check(task: Task, name: str) -> bool:
    """Say whether the container's definition has a health check."""
    definitions = task.definition.get("containerDefinitions", ())
    return any(definition["name"] == name and definition.get("healthCheck") for definition in definitions)


def checked(task: Task, name: str, health: Health) -> Task:
    """The container's checks say something else than before."""
    container = task.container(name)
    if container.status is not ContainerStatus.RUNNING:
        return task
    return task.with_container(replace(container, health=health))


def exited(  # noqa: PLR0913 - the facts of one exit
    task: Task, name: str, *, exit_code: int | None, oom_killed: bool, finished_at: str, now: str, ran: float = 0.0
) -> Task:
    """The container ran, for so many seconds, and ended: it is started again, or takes its task along if essential."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED:
        return task
    reason = OUT_OF_MEMORY_REASON if oom_killed else ""
    policy = _restart_policy(task, name)
    if policy and task.desired_status is DesiredStatus.RUNNING and exit_code not in policy.ignored_exit_codes:
        if container.restarting and _same_second(finished_at, container.finished_at):
            return task  # seen before
        lasted = ran >= policy.restart_attempt_period
        again = replace(
            container,
            status=ContainerStatus.CREATED,
            exit_code=exit_code,
            reason=reason,
            finished_at=finished_at or now,
            restarts=container.restarts + 1,
            quick_ends=0 if lasted else container.quick_ends + 1,
        )
        return task.with_container(again)
    return _end(task, container, exit_code=exit_code, reason=reason, finished_at=finished_at or now, now=now)


def _restart_policy(task: Task, name: str) -> RestartPolicy | None:
    for definition in task.definition.get("containerDefinitions", ()):
        if definition["name"] == name and definition.get("restartPolicy"):
            policy = RestartPolicy.model_validate(definition["restartPolicy"])
            return policy if policy.enabled else None
    return None


def _same_second(one: str, other: str) -> bool:
    """Podman's list knows whole seconds only."""
    whole = len("2026-11-24T00:00:00")
    return one[:whole] == other[:whole]


def vanished(task: Task, name: str, now: str) -> Task:
    """The engine does not know the container any more, and no reboot explains it."""
    container = task.container(name)
    match container.status:
        case ContainerStatus.RUNNING:
            reason = "" if task.desired_status is DesiredStatus.STOPPED else VANISHED_REASON
            return _end(task, container, exit_code=None, reason=reason, finished_at=now, now=now)
        case ContainerStatus.CREATED:
            return again(task, name)
        case _:
            return task


def rebooted(task: Task, name: str, *, still_there: bool) -> Task:
    """The device restarted under the container: what should run is to be started, or made, again."""
    container = task.container(name)
    if container.status not in (ContainerStatus.CREATED, ContainerStatus.RUNNING):
        return task
    if not still_there:
        return again(task, name)
    return task.with_container(replace(container, status=ContainerStatus.CREATED))


def again(task: Task, name: str, *, discard: bool = False, forget_ports: bool = False) -> Task:
    """Make the container once more from the beginning; with `discard`, remove first what the engine has of it."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED:
        return task
    return task.with_container(
        replace(
            container,
            status=ContainerStatus.NONE,
            runtime_id="",
            boot_id="",
            discard=discard,
            ports=() if forget_ports else container.ports,
        )
    )


def failed(task: Task, name: str, reason: str, now: str) -> Task:
    """The container cannot be pulled, created or started, and trying again would not help: the task ends."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED:
        return task
    ended = task.with_container(_stopped(container, reason=cut_reason(reason)))
    return stop(ended, now, StopCode.TASK_FAILED_TO_START, reason)


def waiting(task: Task, name: str, reason: str) -> Task:
    """The container is not further because of `reason`, and is tried again later."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED:
        return task
    return task.with_container(replace(container, pending_reason=cut_reason(reason)))


def stop(task: Task, now: str, code: StopCode, reason: str) -> Task:
    """The task should stop; the first reason given stays."""
    if task.desired_status is DesiredStatus.STOPPED:
        return _settle(task, now)
    stopping = replace(
        task,
        desired_status=DesiredStatus.STOPPED,
        stopping_at=now,
        stop_code=code,
        stopped_reason=cut_reason(reason),
    )
    return _settle(stopping, now)


def stopped(task: Task, name: str, now: str, *, exit_code: int | None = None, finished_at: str = "") -> Task:
    """The engine was told to stop the container and it does not run any more (or never did)."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED:
        return task
    ended = _stopped(container, exit_code=exit_code, finished_at=finished_at)
    return _settle(task.with_container(ended), now)


def _end(  # noqa: PLR0913 - the facts of one exit
    task: Task, container: Container, *, exit_code: int | None, reason: str, finished_at: str, now: str
) -> Task:
    ended = task.with_container(_stopped(container, exit_code=exit_code, reason=reason, finished_at=finished_at))
    if container.essential:
        return stop(ended, now, StopCode.ESSENTIAL_CONTAINER_EXITED, EXITED_REASON)
    return _settle(ended, now)


def _stopped(
    container: Container, *, exit_code: int | None = None, reason: str = "", finished_at: str = ""
) -> Container:
    return replace(
        container,
        status=ContainerStatus.STOPPED,
        exit_code=exit_code,
        reason=reason or container.reason,
        finished_at=finished_at,
        pending_reason="",
    )


def _settle(task: Task, now: str) -> Task:
    """Draw the consequences: what was never made is STOPPED at once, and the task's own times follow its containers."""
    if task.desired_status is DesiredStatus.STOPPED:
        unmade = [c for c in task.containers if c.status is ContainerStatus.NONE and not c.discard]
        for container in unmade:
            task = task.with_container(_stopped(container))
    status = task.last_status
    if status is TaskStatus.RUNNING and not task.started_at:
        task = replace(task, started_at=now)
    if status is TaskStatus.STOPPED and not task.stopped_at:
        task = replace(task, stopped_at=now)
        if task.desired_status is DesiredStatus.RUNNING:
            task = stop(task, now, StopCode.ESSENTIAL_CONTAINER_EXITED, EXITED_REASON)
    return task


def removed(task: Task, name: str) -> Task:
    """The engine has nothing under the container's name any more."""
    container = task.container(name)
    if container.status is ContainerStatus.STOPPED:
        return task.with_container(replace(container, removed=True))
    return task.with_container(replace(container, discard=False, pending_reason=""))
