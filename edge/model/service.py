"""A service: tasks of one definition that a device keeps at a number, and replaces by newer ones without losing health.

The rules are ECS's rolling update (`minimumHealthyPercent`, `maximumPercent`, circuit breaker with roll-back), decided
on the device, so that they hold without a link. Pure: who executes gives what is known and does what is said.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from edge.model.health import UNHEALTHY_REASON
from edge.model.service_documents import DesiredService

MAXIMUM_REFUSED: Final = 16
"""Task definitions remembered as given up, the newest: no more can come back by mistake."""
DELETED_REASON: Final = "Service is no longer in the desired state"


class RolloutState(StrEnum):
    """How far a deployment is, in ECS's words."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """What a container's image meant when the deployment began; every task of it gets the same."""

    container: str
    image_id: str
    digest: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """One task definition on its way to be what the service runs.

    Attributes:
        deployment_id: `ecs-svc/` and 16 digits; the `startedBy` of its tasks.
        definition_key: `family:revision`.
        definition: The normalized task definition: kept here, because newer desired states do not carry it any more.
        failed_tasks: Tasks of it that ended by themselves or were unhealthy while it was in progress.
        spent_seconds: How long it has been in progress while the device was on.
        images: Empty until its first task has its images.
        reason: Why it is as it is, for a person.
    """

    deployment_id: str
    definition_key: str
    definition_digest: str
    definition: Mapping[str, Any] = field(repr=False)
    created_at: str
    rollout: RolloutState = RolloutState.IN_PROGRESS
    failed_tasks: int = 0
    spent_seconds: float = 0.0
    images: tuple[PinnedImage, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """A service on this device.

    Attributes:
        deployment: What it is to run now.
        healthy: The last deployment that was healthy: what a failed one gives way to; its images are kept.
        former: The healthy one before that; its images are kept too.
        refused: Digests of task definitions that were given up here; not tried again.
        failures: Tasks that ended by themselves since one ran long; they make starts wait longer.
        wanted: The desired state in force has it.
    """

    name: str
    desired: DesiredService
    deployment: Deployment
    healthy: Deployment | None = None
    former: Deployment | None = None
    refused: tuple[str, ...] = ()
    failures: int = 0
    wanted: bool = True

    @property
    def count(self) -> int:
        """How many tasks there should be."""
        if not self.wanted:
            return 0
        return 1 if self.desired.scheduling_strategy == "DAEMON" else self.desired.desired_count

    @property
    def rolled_back(self) -> bool:
        """The device does not run what the desired state says, because it was not healthy here."""
        return self.deployment.definition_key != self.desired.task_definition

    @property
    def settled(self) -> bool:
        """It has come to rest, one way or the other."""
        return self.deployment.rollout is RolloutState.COMPLETED or self.rolled_back


@dataclass(frozen=True, slots=True)
class Replica:
    """One task of a service that is not STOPPED.

    Attributes:
        deployment_id: To which it belongs.
        stopping: It should stop, and has not yet.
        healthy: True once it does its work, False when its checks fail beyond the grace period, None in between.
        age: Seconds since it was begun; decides who goes first.
    """

    task_id: str
    deployment_id: str
    stopping: bool = False
    healthy: bool | None = None
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Tending:
    """What is to be done now.

    Attributes:
        service: As it is from now on.
        start: So many tasks of `service.deployment`.
        stop: `(task id, reason)`.
        failed: Of `stop`, those whose health failed.
    """

    service: Service
    start: int = 0
    stop: tuple[tuple[str, str], ...] = ()
    failed: tuple[str, ...] = ()


def limits(desired: DesiredService, count: int, definition: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many tasks stay healthy at least and run at most while one deployment follows another."""
    configuration = desired.deployment_configuration
    alone = desired.scheduling_strategy == "DAEMON" or has_fixed_port(definition)
    low, high = configuration.minimum_healthy_percent, configuration.maximum_percent
    low = (0 if alone else 100) if low is None else low
    high = (100 if alone else 200) if high is None else high
    return math.ceil(count * low / 100), max(count * high // 100, min(count, 1))


def has_fixed_port(definition: Mapping[str, Any]) -> bool:
    """Say whether two tasks of the definition cannot run beside each other."""
    for container in definition.get("containerDefinitions", ()):
        for mapping in container.get("portMappings") or ():
            if mapping.get("hostPort") or definition.get("networkMode") == "host":
                return True
    return False


def service_problems(desired: DesiredService, definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what can never work, as `(path, message)`."""
    count = 1 if desired.scheduling_strategy == "DAEMON" else desired.desired_count
    low, high = limits(desired, count, definition)
    problems = []
    if has_fixed_port(definition) and count > 1:
        problems.append(
            ("desiredCount", f"{count} tasks cannot share a host port; use hostPort 0, or a desiredCount of 1")
        )
    elif has_fixed_port(definition) and low >= count > 0:
        why = "a new task cannot have the host port while the old one must stay"
        problems.append(("deploymentConfiguration", f"{why}; set minimumHealthyPercent to 0, maximumPercent to 100"))
    elif count and low >= count and high <= count:
        problems.append(
            (
                "deploymentConfiguration",
                f"of {count} tasks {low} must stay and {high} may run: no new one can start before an old one stops",
            )
        )
    return problems


def intend(  # noqa: PLR0913 - a service and the definition it names
    service: Service | None,
    desired: DesiredService,
    *,
    definition: Mapping[str, Any],
    digest: str,
    new_id: str,
    now: str,
) -> Service:
    """Return the service after a desired state named it.

    A definition that was given up here stays given up, whatever its key is now: only another one is tried.
    """
    fresh = Deployment(new_id, desired.task_definition, digest, definition, now)
    if service is None:
        return Service(desired.service_name, desired, fresh)
    service = replace(service, desired=desired, wanted=True)
    if digest == service.deployment.definition_digest:
        same = replace(service.deployment, definition_key=desired.task_definition)
        return replace(service, deployment=same)
    if digest in service.refused:
        return service
    if service.healthy is not None and digest == service.healthy.definition_digest:
        # Its tasks may still be there: they are the same deployment's.
        fresh = _again(replace(service.healthy, definition_key=desired.task_definition))
    return replace(service, deployment=fresh, failures=0)


def _again(deployment: Deployment, reason: str = "") -> Deployment:
    return replace(deployment, rollout=RolloutState.IN_PROGRESS, failed_tasks=0, spent_seconds=0.0, reason=reason)


def tend(service: Service, replicas: Sequence[Replica], *, may_start: bool) -> Tending:
    """Decide what is due.

    Args:
        service: As it was left.
        replicas: Its tasks that are not STOPPED, of all deployments.
        may_start: False while starts wait because tasks keep failing.
    """
    service = _judged(service, replicas)
    count = service.count
    low, high = limits(service.desired, count, service.deployment.definition)
    alive = [replica for replica in replicas if not replica.stopping]
    if not service.wanted:
        return Tending(service, stop=tuple((replica.task_id, DELETED_REASON) for replica in alive))
    sick = [replica for replica in alive if replica.healthy is False]
    well = [replica for replica in alive if replica.healthy is not False]
    ours = [replica for replica in well if replica.deployment_id == service.deployment.deployment_id]
    others = [replica for replica in well if replica.deployment_id != service.deployment.deployment_id]
    lacking = max(0, count - len(ours))
    room = max(0, high - len(replicas))
    stop = [(replica.task_id, UNHEALTHY_REASON) for replica in sick]
    scaling = f"Scaling activity initiated by (deployment {service.deployment.deployment_id})"
    going = [*_surplus(ours, len(ours) - count), *_giving_way(ours, others, count=count, low=low, need=lacking - room)]
    stop.extend((replica.task_id, scaling) for replica in going)
    return Tending(
        service,
        start=min(lacking, room) if may_start else 0,
        stop=tuple(stop),
        failed=tuple(replica.task_id for replica in sick),
    )


def _giving_way(
    ours: Sequence[Replica], others: Sequence[Replica], *, count: int, low: int, need: int
) -> list[Replica]:
    """Return which tasks of other deployments stop: as many as are replaced or in the way, as far as health allows."""
    unready = [replica for replica in others if not replica.healthy]
    ready = [replica for replica in others if replica.healthy]
    able = sum(1 for replica in ours if replica.healthy)
    wanted = max(able + len(others) - count, need)
    first = _surplus(unready, wanted)
    return [*first, *_surplus(ready, min(able + len(ready) - low, wanted - len(first)))]


def _surplus(replicas: Sequence[Replica], most: int) -> list[Replica]:
    """Return `most` of them, those that do no work yet first, then the youngest."""
    order = sorted(replicas, key=lambda replica: (replica.healthy is True, replica.age))
    return order[: max(0, most)]


def _judged(service: Service, replicas: Sequence[Replica]) -> Service:
    deployment = service.deployment
    if deployment.rollout is RolloutState.COMPLETED or not service.wanted:
        return service
    able = [r for r in replicas if r.deployment_id == deployment.deployment_id and r.healthy and not r.stopping]
    if len(able) >= service.count:
        done = replace(
            deployment, rollout=RolloutState.COMPLETED, reason=deployment.reason if service.rolled_back else ""
        )
        former = service.former
        if service.healthy is not None and service.healthy.definition_digest != done.definition_digest:
            former = service.healthy
        return replace(service, deployment=done, healthy=done, former=former)
    breaker = service.desired.deployment_configuration.deployment_circuit_breaker
    why = _why_given_up(service)
    if deployment.rollout is RolloutState.FAILED or not breaker.enable or not why:
        return service
    healthy = service.healthy
    if not breaker.rollback or healthy is None or healthy.deployment_id == deployment.deployment_id:
        return replace(service, deployment=replace(deployment, rollout=RolloutState.FAILED, reason=why))
    back = f"rolled back to {healthy.definition_key}: {deployment.definition_key} {why}"
    return replace(
        service,
        deployment=_again(healthy, back),
        refused=(*service.refused, deployment.definition_digest)[-MAXIMUM_REFUSED:],
        failures=0,
    )


def _why_given_up(service: Service) -> str:
    deployment, desired = service.deployment, service.desired
    breaker = desired.deployment_configuration.deployment_circuit_breaker
    if deployment.failed_tasks >= breaker.threshold:
        return f"had {deployment.failed_tasks} tasks that failed"
    if deployment.spent_seconds >= desired.healthy_within_seconds:
        return f"was not healthy within {desired.healthy_within_seconds} seconds"
    return ""


def task_failed(service: Service, deployment_id: str) -> Service:
    """A task of the service ended by itself, could not be started, or was unhealthy."""
    deployment = service.deployment
    if deployment.deployment_id == deployment_id and deployment.rollout is not RolloutState.COMPLETED:
        service = replace(service, deployment=replace(deployment, failed_tasks=deployment.failed_tasks + 1))
    return replace(service, failures=service.failures + 1)


def time_spent(service: Service, seconds: float) -> Service:
    """So much time has passed while the device was on."""
    deployment = service.deployment
    if deployment.rollout is not RolloutState.IN_PROGRESS:
        return service
    return replace(service, deployment=replace(deployment, spent_seconds=deployment.spent_seconds + seconds))


def images_kept(service: Service) -> frozenset[str]:
    """Return the ids of the images a roll-back would need, and of those the deployment began with."""
    deployments = (service.deployment, service.healthy, service.former)
    return frozenset(image.image_id for one in deployments if one is not None for image in one.images)
