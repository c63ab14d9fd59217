"""The services of this device: their records, their tasks, and what `edge.model.service` decides about them.

Only the engine's thread touches it. Everything it changes goes into the reconciler's `Change`, beside the tasks it is
about: no power cut can part them.
"""

import logging
import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from edge.agent.engine.ports import Clock
from edge.agent.engine.reconciler import Reconciler
from edge.model.assignment import AcceptedDefinition, Assignment, device_task
from edge.model.documents import DesiredStatus, Problem
from edge.model.health import health_of
from edge.model.service import (
    Deployment,
    PinnedImage,
    Replica,
    RolloutState,
    Service,
    images_kept,
    intend,
    task_failed,
    tend,
    time_spent,
)
from edge.model.service_records import describe_service, service_from_bytes, service_to_bytes
from edge.model.task import ContainerStatus, Health, Origin, StopCode, Task, TaskStatus

_log = logging.getLogger(__name__)

META: Final = "service:"
"""Begins the keys of services in the store."""
STEADY_SECONDS: Final = 10.0
"""A task without health checks counts as healthy when it has run so long."""
LASTING_SECONDS: Final = 300.0
"""A task that was healthy so long shows that the failures before it are over; ECS's `restartAttemptPeriod`."""
LONGEST_PAUSE: Final = 300.0
WRITE_SECONDS: Final = 60.0
"""How often the time a deployment has taken is written down."""


class Services:
    """Keeps services at their numbers."""

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        stored: Mapping[str, bytes],
        reconciler: Reconciler,
        clock: Clock,
        *,
        describe_event: Callable[[str, dict[str, Any]], tuple[str, bytes]],
        cluster: str,
        source: random.Random | None = None,
    ) -> None:
        """Take them up.

        Args:
            stored: The store's records, by name.
            reconciler: Has the tasks.
            clock: For what takes its time.
            describe_event: Makes `(topic, payload)` of a deployment's state change: its name and the service object.
            cluster: For names.
            source: Of jitter.
        """
        self._reconciler = reconciler
        self._clock = clock
        self._describe_event = describe_event
        self._cluster = cluster
        self._random = source or random.Random()  # noqa: S311 - jitter is no secret
        self._services: dict[str, Service] = {}
        self._running_since: dict[str, float] = {}
        self._not_before: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._tended_at = clock.monotonic()
        self._begun = False
        self._due: float | None = None
        for name, data in stored.items():
            try:
                self._services[name] = service_from_bytes(data)
            except (ValueError, KeyError, TypeError) as error:
                _log.error("the stored service %s cannot be read by this version: %s", name, error)
                continue
            self._pause(self._services[name])

    # --- what the engine asks

    @property
    def settled(self) -> bool:
        """All have come to rest."""
        return all(service.settled for service in self._services.values() if service.wanted)

    def rolled_back(self) -> list[Problem]:
        """Return which services run something else than the desired state says, and why."""
        return [
            Problem(path=f"services.{service.name}", message=service.deployment.reason)
            for service in self._services.values()
            if service.wanted and service.rolled_back
        ]

    def images_kept(self) -> frozenset[str]:
        """Return the ids of images that a roll-back would need."""
        return frozenset[str]().union(*(images_kept(service) for service in self._services.values()))

    def describe(self) -> list[dict[str, Any]]:
        """Return the service objects."""
        return [self._describe(service) for service in self._services.values()]

    def next_due(self) -> float | None:
        """Return the monotonic time at which `tend` has something to do without any new fact."""
        return self._due

    # --- facts

    def assign(self, assignment: Assignment) -> None:
        """Bring a desired state's services into force; what it does not name is no longer wanted."""
        named = {desired.service_name for desired in assignment.services}
        for service in list(self._services.values()):
            if service.name not in named and service.wanted:
                self._put(replace(service, wanted=False))
        for desired in assignment.services:
            definition = assignment.definitions[desired.task_definition]
            known = self._services.get(desired.service_name)
            service = intend(
                known,
                desired,
                definition=definition.wire,
                digest=definition.digest,
                new_id=f"ecs-svc/{secrets.randbelow(10**16):016}",
                now=self._clock.now(),
            )
            if service != known:
                self._put(service)

    def tend(self) -> None:
        """Do what is due."""
        now = self._clock.monotonic()
        elapsed, self._tended_at = now - self._tended_at, now
        self._due = None
        if not self._reconciler.adopted:
            return
        if not self._begun:
            self._begun = True
            self._take_up(now)
        for service in list(self._services.values()):
            tasks = self._tasks_of(service)
            self._spend(service, elapsed)
            self._take_note(service.name, tasks)
            self._pin(service.name, tasks)
            self._tend_one(self._services[service.name], tasks, now)
        self._running_since = {
            task_id: since for task_id, since in self._running_since.items() if task_id in self._reconciler.tasks
        }

    def _take_up(self, now: float) -> None:
        """What ran before this agent need not show again that it is steady, save in a deployment under way."""
        for service in self._services.values():
            under_way = service.deployment.rollout is RolloutState.IN_PROGRESS
            for task in self._tasks_of(service):
                new = under_way and task.started_by == service.deployment.deployment_id
                if task.last_status is TaskStatus.RUNNING and not new:
                    self._running_since[task.task_id] = now - STEADY_SECONDS

    # --- one service

    def _tend_one(self, service: Service, tasks: Iterable[Task], now: float) -> None:
        replicas = [self._replica(service, task, now) for task in tasks if task.last_status is not TaskStatus.STOPPED]
        may_start = self._not_before.get(service.name, now) <= now
        found = tend(self._ready(service, replicas), replicas, may_start=may_start)
        service = found.service
        for task_id in found.failed:
            service = task_failed(service, self._reconciler.tasks[task_id].started_by)
            self._pause(service)
        self._put(service)
        for task_id, reason in found.stop:
            self._reconciler.stop(task_id, StopCode.SERVICE_SCHEDULER_INITIATED, reason)
        for _ in range(found.start):
            self._reconciler.begin(self._new_task(service))
        if not service.wanted and not replicas:
            self._forget(service)
        self._plan_next(service, now)

    def _ready(self, service: Service, replicas: Iterable[Replica]) -> Service:
        """A task that was healthy for long ends the caution that failures before it brought."""
        if service.failures and any(replica.healthy and replica.age >= LASTING_SECONDS for replica in replicas):
            self._not_before.pop(service.name, None)
            return replace(service, failures=0)
        return service

    def _take_note(self, name: str, tasks: Iterable[Task]) -> None:
        """Count the tasks that ended though nobody told them to."""
        for task in tasks:
            if task.last_status is not TaskStatus.STOPPED or task.noted:
                continue
            self._reconciler.note(replace(task, noted=True))
            if task.stop_code not in (StopCode.SERVICE_SCHEDULER_INITIATED, StopCode.USER_INITIATED):
                service = task_failed(self._services[name], task.started_by)
                self._put(service)
                self._pause(service)

    def _pin(self, name: str, tasks: Iterable[Task]) -> None:
        """Remember what the images of a deployment meant when its first task had them."""
        service = self._services[name]
        if service.deployment.images:
            return
        for task in tasks:
            if task.started_by == service.deployment.deployment_id and all(c.image_id for c in task.containers):
                images = tuple(PinnedImage(c.name, c.image_id, c.image_digest) for c in task.containers)
                self._put(replace(service, deployment=replace(service.deployment, images=images)))
                return

    def _spend(self, service: Service, elapsed: float) -> None:
        if service.deployment.rollout is not RolloutState.IN_PROGRESS:
            self._spent.pop(service.name, None)
            return
        spent = self._spent.get(service.name, 0.0) + elapsed
        left = service.desired.healthy_within_seconds - service.deployment.spent_seconds
        if spent >= min(WRITE_SECONDS, left):
            self._put(time_spent(service, spent))
            spent = 0.0
        self._spent[service.name] = spent

    def _pause(self, service: Service) -> None:
        if service.failures:
            bound = min(LONGEST_PAUSE, 2.0 ** min(service.failures - 1, 30))
            self._not_before[service.name] = self._clock.monotonic() + self._random.uniform(0, bound)

    def _replica(self, service: Service, task: Task, now: float) -> Replica:
        running = task.last_status is TaskStatus.RUNNING
        if running:
            since = self._running_since.setdefault(task.task_id, now)
        else:
            since = now
            self._running_since.pop(task.task_id, None)
        age = now - since
        healthy: bool | None = None
        match health_of(task):
            case Health.HEALTHY:
                healthy = True if running else None
            case Health.UNHEALTHY if age >= service.desired.health_check_grace_period_seconds:
                healthy = False
            case Health.NONE if running and age >= STEADY_SECONDS:
                healthy = True
            case _:
                pass
        stopping = task.desired_status is DesiredStatus.STOPPED
        return Replica(task.task_id, task.started_by, stopping=stopping, healthy=healthy, age=age)

    def _new_task(self, service: Service) -> Task:
        deployment = service.deployment
        task = device_task(
            Origin.SERVICE,
            secrets.token_hex(16),
            deployment.definition_key,
            AcceptedDefinition(deployment.definition, deployment.definition_digest),
            group=f"service:{service.name}",
            started_by=deployment.deployment_id,
            now=self._clock.now(),
        )
        return _pinned(task, deployment)

    def _plan_next(self, service: Service, now: float) -> None:
        """Say when time alone will matter."""
        times = [self._not_before.get(service.name, 0.0)]
        deployment = service.deployment
        if deployment.rollout is RolloutState.IN_PROGRESS:
            left = (
                service.desired.healthy_within_seconds - deployment.spent_seconds - self._spent.get(service.name, 0.0)
            )
            times.append(now + min(left, WRITE_SECONDS))
        grace = service.desired.health_check_grace_period_seconds
        for task in self._tasks_of(service):
            since = self._running_since.get(task.task_id)
            if since is not None:
                lasting = [LASTING_SECONDS] if service.failures else []
                times.extend(since + after for after in (STEADY_SECONDS, grace, *lasting))
        coming = [time for time in times if time > now]
        if coming:
            self._due = min(*coming, self._due or coming[0])

    # --- keeping

    def _tasks_of(self, service: Service) -> list[Task]:
        group = f"service:{service.name}"
        return [t for t in self._reconciler.tasks.values() if t.origin is Origin.SERVICE and t.group == group]

    def _put(self, service: Service) -> None:
        before = self._services.get(service.name)
        if service == before:
            return
        self._services[service.name] = service
        change = self._reconciler.change
        change.meta[META + service.name] = service_to_bytes(service)
        rollout = _rollout(service)
        if before is None or rollout != _rollout(before):
            name = f"SERVICE_DEPLOYMENT_{service.deployment.rollout.value}"
            change.events.append(self._describe_event(name, self._describe(service)))

    def _forget(self, service: Service) -> None:
        del self._services[service.name]
        self._not_before.pop(service.name, None)
        self._spent.pop(service.name, None)
        self._reconciler.change.meta[META + service.name] = None

    def _describe(self, service: Service) -> dict[str, Any]:
        alive = [task for task in self._tasks_of(service) if task.last_status is not TaskStatus.STOPPED]
        return describe_service(service, alive, self._cluster)


def _rollout(service: Service) -> tuple[str, RolloutState]:
    return service.deployment.deployment_id, service.deployment.rollout


def _pinned(task: Task, deployment: Deployment) -> Task:
    for image in deployment.images:
        container = replace(task.container(image.container), image_digest=image.digest, pinned=bool(image.digest))
        assert container.status is ContainerStatus.NONE  # noqa: S101 - it was made just now
        task = task.with_container(container)
    return task
