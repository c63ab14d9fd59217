"""Since when containers are what they are, and what follows: when one starts again, and who has waited too long.

By the monotonic clock: no wall clock has a say. What must outlive a restart is a count in the task's record.
"""

import random
from collections.abc import Iterable
from typing import Final

from edge.model.dependencies import waits_for
from edge.model.documents import DesiredStatus
from edge.model.plan import StepKey
from edge.model.task import Container, ContainerStatus, Task

LONGEST_PAUSE: Final = 300.0
"""Seconds; a container that ends at once is started again so seldom in the end."""


class Pace:
    """Only the engine's thread touches it."""

    def __init__(self, tasks: Iterable[Task], now: float, source: random.Random | None = None) -> None:
        """Take up tasks from the store: what was waiting to be started again waits again."""
        self._random = source or random.Random()  # noqa: S311 - jitter is no secret
        self._running: dict[StepKey, float] = {}
        self._made: dict[StepKey, float] = {}
        self._due: dict[StepKey, float] = {}
        for task in tasks:
            self.changed(None, task, now)

    def changed(self, before: Task | None, task: Task, now: float) -> None:
        """Note what a task has become."""
        for container in task.containers:
            key = (task.task_id, container.name)
            known = before.container(container.name) if before is not None else None
            self._note(self._running, key, now, holds=container.status is ContainerStatus.RUNNING)
            made = container.status in (ContainerStatus.CREATED, ContainerStatus.RUNNING)
            self._note(self._made, key, now, holds=made)
            if container.restarting and (known is None or known.restarts != container.restarts):
                self._due[key] = now + self._random.uniform(0.0, pause(container))
            elif not container.restarting or task.desired_status is not DesiredStatus.RUNNING:
                self._due.pop(key, None)

    def forget(self, task: Task) -> None:
        """A task is no more."""
        for container in task.containers:
            for times in (self._running, self._made, self._due):
                times.pop((task.task_id, container.name), None)

    def ran(self, key: StepKey, now: float) -> float:
        """Return for how many seconds a container has been seen running."""
        return now - self._running.get(key, now)

    def waiting(self, now: float) -> set[StepKey]:
        """Return which containers must not be started yet."""
        return {key for key, due in self._due.items() if due > now}

    def overdue(self, task: Task, now: float) -> tuple[str, str] | None:
        """Return `(container, reason)` of one that waited out its dependency's `startTimeout`."""
        for container, target, condition, deadline in self._deadlines(task):
            if deadline <= now:
                return container, (
                    f"TaskDependencyError: container {container} depends on {target} being {condition}, which it was "
                    "not within its startTimeout"
                )
        return None

    def next_due(self, tasks: Iterable[Task], now: float) -> float | None:
        """Return when something is due by time alone."""
        times = [due for due in self._due.values() if due > now]
        times.extend(deadline for task in tasks for *_, deadline in self._deadlines(task) if deadline > now)
        return min(times, default=None)

    def _deadlines(self, task: Task) -> Iterable[tuple[str, str, str, float]]:
        if task.desired_status is not DesiredStatus.RUNNING:
            return
        timeouts = {
            definition["name"]: definition["startTimeout"]
            for definition in task.definition.get("containerDefinitions", ())
            if definition.get("startTimeout")
        }
        for container in task.containers if timeouts else ():
            if container.status is not ContainerStatus.CREATED or container.restarting:
                continue
            for target, condition in waits_for(task, container.name):
                made = self._made.get((task.task_id, target))
                if target in timeouts and made is not None:
                    yield container.name, target, condition, made + timeouts[target]

    @staticmethod
    def _note(times: dict[StepKey, float], key: StepKey, now: float, *, holds: bool) -> None:
        if holds:
            times.setdefault(key, now)
        else:
            times.pop(key, None)


def pause(container: Container) -> float:
    """Return how long the next start of a container waits at the most, in seconds."""
    return 0.0 if not container.quick_ends else min(LONGEST_PAUSE, 2.0 ** min(container.quick_ends - 1, 30))
