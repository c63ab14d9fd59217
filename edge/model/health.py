"""Health: of a task from its containers', and how a container's follows from its checks."""

from dataclasses import dataclass, replace
from typing import Final

from edge.model.task import ContainerStatus, Health, Task
from edge.model.task_definition_life import HealthCheck

UNHEALTHY_REASON: Final = "Task failed container health checks"


def health_of(task: Task) -> Health:
    """Return the health of a task by ECS's rule.

    An essential container that is UNHEALTHY makes the task so; else one that is UNKNOWN; containers without checks do
    not count.
    """
    found = {c.health for c in task.containers if c.essential and c.status is not ContainerStatus.STOPPED}
    for health in (Health.UNHEALTHY, Health.UNKNOWN, Health.HEALTHY):
        if health in found:
            return health
    return Health.NONE


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks of one run of a container have said so far; `failures` in a row."""

    health: Health = Health.UNKNOWN
    failures: int = 0


def after_check(before: Checked, check: HealthCheck, *, passed: bool, age: float) -> Checked:
    """Return what is known after another check; `age` is the seconds since the container started.

    Failures in the start period do not count, unless the container was healthy before.
    """
    if passed:
        return Checked(Health.HEALTHY)
    if age < check.start_period and before.health is Health.UNKNOWN:
        return before
    failures = before.failures + 1
    return Checked(Health.UNHEALTHY, failures) if failures >= check.retries else replace(before, failures=failures)
