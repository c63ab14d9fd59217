"""The health checks of this device's containers: when each is due, and what its result makes of the container.

Podman's own are switched off: without systemd they do not run at all, and up to 5.4 one that hangs hangs for ever. Only
the engine's thread touches this; the checks themselves run on workers.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from edge.agent.engine.ports import Clock
from edge.agent.engine.reconciler import Reconciler
from edge.model.documents import DesiredStatus
from edge.model.health import Checked, after_check
from edge.model.plan import StepKey
from edge.model.task import ContainerStatus, Health, Task
from edge.model.task_definition_life import HealthCheck

FIRST_SECONDS: Final = 1.0
"""The first check after a start comes within this, so that what is healthy at once is known to be."""


class Checkers(Protocol):
    """Runs checks elsewhere."""

    def check_health(self, task_id: str, container: str, runtime_id: str, check: HealthCheck) -> None:
        """Run a check; answered by `HealthChecked`."""
        ...


@dataclass(slots=True)
class _Watch:
    runtime_id: str
    started_at: str
    check: HealthCheck
    since: float
    due: float
    said: Checked
    under_way: bool = False


class HealthChecks:
    """One watch for each running container that has a check."""

    def __init__(
        self, reconciler: Reconciler, clock: Clock, checkers: Checkers, source: random.Random | None = None
    ) -> None:
        self._reconciler = reconciler
        self._clock = clock
        self._checkers = checkers
        self._random = source or random.Random()  # noqa: S311 - jitter is no secret
        self._watches: dict[StepKey, _Watch] = {}
        self._checks: dict[StepKey, HealthCheck | None] = {}

    def tend(self) -> None:
        """Begin the checks that are due."""
        now = self._clock.monotonic()
        seen: set[StepKey] = set()
        for task in self._reconciler.tasks.values():
            for key, watch in self._watches_of(task, now):
                seen.add(key)
                if watch.due <= now and not watch.under_way:
                    watch.under_way = True
                    self._checkers.check_health(*key, watch.runtime_id, watch.check)
        for key in self._watches.keys() - seen:
            del self._watches[key]
        for key in [key for key in self._checks if key[0] not in self._reconciler.tasks]:
            del self._checks[key]

    def checked(self, key: StepKey, runtime_id: str, *, passed: bool | None) -> None:
        """A check came to its end; None: it could not be run, which says nothing about the container."""
        watch = self._watches.get(key)
        if watch is None or watch.runtime_id != runtime_id or not watch.under_way:
            return
        now = self._clock.monotonic()
        watch.under_way = False
        watch.due = now + watch.check.interval
        if passed is None:
            return
        before = watch.said
        watch.said = after_check(before, watch.check, passed=passed, age=now - watch.since)
        if watch.said.health is not before.health:
            self._reconciler.health_changed(*key, watch.said.health)

    def next_due(self) -> float | None:
        """Return when the next check is due."""
        return min((watch.due for watch in self._watches.values() if not watch.under_way), default=None)

    def _watches_of(self, task: Task, now: float) -> list[tuple[StepKey, _Watch]]:
        if task.desired_status is not DesiredStatus.RUNNING:
            return []
        found = []
        for container in task.containers:
            key = (task.task_id, container.name)
            if container.status is not ContainerStatus.RUNNING or (check := self._check_of(key, task)) is None:
                continue
            watch = self._watches.get(key)
            if watch is None or (watch.runtime_id, watch.started_at) != (container.runtime_id, container.started_at):
                first = now + self._random.uniform(0.0, FIRST_SECONDS)
                # After a restart of the agent a container is what its checks said last.
                said = Checked(container.health if container.health is not Health.NONE else Health.UNKNOWN)
                watch = _Watch(container.runtime_id, container.started_at, check, now, first, said)
                self._watches[key] = watch
            found.append((key, watch))
        return found

    def _check_of(self, key: StepKey, task: Task) -> HealthCheck | None:
        if key not in self._checks:
            definitions: list[Mapping[str, object]] = task.definition.get("containerDefinitions", [])
            raw = next((one.get("healthCheck") for one in definitions if one["name"] == key[1]), None)
            self._checks[key] = HealthCheck.model_validate(raw) if raw else None
        return self._checks[key]
