"""A service's decisions: numbers kept, deployments that follow each other, those that are given up."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.health import UNHEALTHY_REASON
from edge.model.service import (
    DELETED_REASON,
    PinnedImage,
    Replica,
    RolloutState,
    Service,
    Tending,
    images_kept,
    intend,
    limits,
    service_problems,
    task_failed,
    tend,
    time_spent,
)
from edge.model.service_documents import DesiredService

NOW = "2026-11-24T00:00:00.000Z"
FREE: dict[str, Any] = {"containerDefinitions": [{"name": "app", "portMappings": [{"containerPort": 80}]}]}
FIXED: dict[str, Any] = {
    "containerDefinitions": [{"name": "app", "portMappings": [{"containerPort": 80, "hostPort": 80}]}]
}


def desired(definition: str = "web:1", **changes: object) -> DesiredService:
    return DesiredService.model_validate({"serviceName": "web", "taskDefinition": definition} | changes)


def named(service: Service | None, definition: str = "web:1", digest: str = "", **changes: object) -> Service:
    return intend(
        service,
        desired(definition, **changes),
        definition=FREE,
        digest=digest or definition,
        new_id=f"ecs-svc/{definition}",
        now=NOW,
    )


def running(
    service: Service, count: int, *, healthy: bool | None = True, of: str = "", first: int = 0
) -> list[Replica]:
    deployment = of or service.deployment.deployment_id
    return [Replica(f"{deployment}-{first + n}", deployment, healthy=healthy, age=100.0 + n) for n in range(count)]


def settled(count: int = 1) -> tuple[Service, list[Replica]]:
    service = named(None, desiredCount=count)
    replicas = running(service, count)
    return tend(service, replicas, may_start=True).service, replicas


def stopped_by(found: Tending) -> list[str]:
    return [task_id for task_id, _ in found.stop]


def test_what_is_lacking_is_started_and_what_is_too_much_stopped() -> None:
    service = named(None, desiredCount=3)
    assert tend(service, [], may_start=True).start == 3
    assert tend(service, running(service, 1), may_start=True).start == 2
    many = running(service, 5)
    found = tend(service, many, may_start=True)
    assert (found.start, stopped_by(found)) == (0, [many[0].task_id, many[1].task_id])


def test_while_tasks_keep_failing_none_is_started() -> None:
    assert tend(named(None), [], may_start=False).start == 0


def test_a_deployment_is_complete_when_all_its_tasks_are_healthy() -> None:
    service = named(None, desiredCount=2)
    assert tend(service, running(service, 2, healthy=None), may_start=True).service == service
    found = tend(service, running(service, 2), may_start=True).service
    assert found.deployment.rollout is RolloutState.COMPLETED
    assert found.healthy == found.deployment


def test_by_default_new_tasks_are_healthy_before_old_ones_stop() -> None:
    service, old = settled(2)
    service = named(service, "web:2", desiredCount=2)
    first = tend(service, old, may_start=True)
    assert (first.start, first.stop) == (2, ())
    new = running(service, 2, healthy=None)
    assert tend(service, old + new, may_start=True).stop == ()
    new = [replace(new[0], healthy=True), new[1]]
    assert len(tend(service, old + new, may_start=True).stop) == 1
    last = tend(service, old + running(service, 2), may_start=True)
    assert sorted(stopped_by(last)) == [replica.task_id for replica in old]
    assert last.service.settled


def test_with_a_host_port_the_old_task_makes_room_first() -> None:
    service, old = settled(1)
    service = intend(service, desired("web:2"), definition=FIXED, digest="2", new_id="ecs-svc/2", now=NOW)
    first = tend(service, old, may_start=True)
    assert (first.start, stopped_by(first)) == (0, [old[0].task_id])
    stopping = [replace(old[0], stopping=True)]
    assert tend(service, stopping, may_start=True).start == 0
    assert tend(service, [], may_start=True).start == 1


def test_an_unhealthy_task_is_replaced() -> None:
    service, replicas = settled(2)
    found = tend(service, [replicas[0], replace(replicas[1], healthy=False)], may_start=True)
    assert found.stop == ((replicas[1].task_id, UNHEALTHY_REASON),)
    assert found.failed == (replicas[1].task_id,)
    assert found.start == 1


def test_a_deployment_whose_tasks_fail_gives_way_to_the_last_healthy_one_and_is_not_tried_again() -> None:
    service, old = settled(1)
    service = named(service, "web:2")
    for _ in range(3):
        service = task_failed(service, "ecs-svc/web:2")
    found = tend(service, old, may_start=True).service
    assert found.deployment.definition_key == "web:1"
    assert "rolled back to web:1: web:2 had 3 tasks that failed" in found.deployment.reason
    assert (found.rolled_back, found.settled, found.refused) == (True, True, ("web:2",))
    assert tend(found, old, may_start=True).start == 0
    again = named(found, "web:2")
    assert again.deployment.definition_key == "web:1"
    renamed = named(found, "web:7", digest="web:2")
    assert renamed.deployment.definition_key == "web:1"
    newer = named(found, "web:3")
    assert newer.deployment.definition_key == "web:3"


def test_a_deployment_that_is_not_healthy_in_its_time_is_rolled_back() -> None:
    service, old = settled(1)
    service = time_spent(named(service, "web:2", healthyWithinSeconds=60), 59)
    assert not tend(service, old, may_start=True).service.rolled_back
    assert tend(time_spent(service, 1), old, may_start=True).service.rolled_back


def test_without_a_healthy_one_before_it_a_failed_deployment_goes_on_trying_and_says_so() -> None:
    service = named(None)
    for _ in range(4):
        service = task_failed(service, "ecs-svc/web:1")
    found = tend(service, [], may_start=True)
    assert (found.service.deployment.rollout, found.start) == (RolloutState.FAILED, 1)
    recovered = tend(found.service, running(found.service, 1), may_start=True).service
    assert recovered.deployment.rollout is RolloutState.COMPLETED


def test_without_the_circuit_breaker_nothing_is_given_up() -> None:
    breaker = {"deploymentCircuitBreaker": {"enable": False}}
    service, old = settled(1)
    service = named(service, "web:2", deploymentConfiguration=breaker)
    for _ in range(50):
        service = task_failed(service, "ecs-svc/web:2")
    assert not tend(service, old, may_start=True).service.rolled_back


def test_a_return_to_the_healthy_definition_keeps_its_tasks() -> None:
    service, old = settled(2)
    away = named(service, "web:2", desiredCount=2)
    back = named(away, "web:1", desiredCount=2)
    new = running(away, 1, healthy=None)
    found = tend(back, old + new, may_start=True)
    assert (found.start, stopped_by(found)) == (0, [new[0].task_id])


def test_a_service_nobody_wants_stops_all_its_tasks() -> None:
    service, replicas = settled(2)
    found = tend(replace(service, wanted=False), replicas, may_start=True)
    assert found.stop == tuple((replica.task_id, DELETED_REASON) for replica in replicas)


def test_images_of_what_may_come_back_are_kept() -> None:
    service, _ = settled(1)
    image = PinnedImage("app", "a" * 64, "sha256:" + "b" * 64)
    service = replace(service, healthy=replace(service.deployment, images=(image,)))
    assert images_kept(named(service, "web:2")) == {"a" * 64}


@pytest.mark.parametrize(
    ("changes", "definition", "path"),
    [
        ({"desiredCount": 2}, FIXED, "desiredCount"),
        ({"deploymentConfiguration": {"minimumHealthyPercent": 100}}, FIXED, "deploymentConfiguration"),
        (
            {"deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 150}},
            FREE,
            "deploymentConfiguration",
        ),
        ({}, FIXED, ""),
        ({"desiredCount": 2, "deploymentConfiguration": {"minimumHealthyPercent": 100}}, FREE, ""),
        ({"schedulingStrategy": "DAEMON"}, FREE, ""),
    ],
)
def test_what_can_never_work_is_told_before_it_is_tried(
    changes: dict[str, object], definition: dict[str, Any], path: str
) -> None:
    wanted = DesiredService.model_validate({"serviceName": "web", "taskDefinition": "web:1"} | changes)
    assert [where for where, _ in service_problems(wanted, definition)] == ([path] if path else [])


# --- a whole deployment, with tasks that come and go


@dataclass
class World:
    """Tasks that start, become healthy, stop and fail, one thing at a time."""

    service: Service
    replicas: list[Replica] = field(default_factory=list)
    begun: int = 0
    lowest: int = 99
    most: int = 0

    def step(self, choices: Sequence[int], *, bad: frozenset[str] = frozenset()) -> None:
        found = tend(self.service, self.replicas, may_start=True)
        self.service = found.service
        for task_id in found.failed:
            self.service = task_failed(self.service, self._of(task_id).deployment_id)
        stopping = {task_id for task_id, _ in found.stop}
        self.replicas = [replace(r, stopping=r.stopping or r.task_id in stopping) for r in self.replicas]
        for _ in range(found.start):
            self.begun += 1
            self.replicas.append(Replica(str(self.begun), self.service.deployment.deployment_id, age=-self.begun))
        self.most = max(self.most, len(self.replicas))
        for choice in choices:
            if self.replicas:
                self._live(choice % len(self.replicas), bad)
        self.lowest = min(self.lowest, sum(1 for r in self.replicas if r.healthy and not r.stopping))

    def _of(self, task_id: str) -> Replica:
        return next(r for r in self.replicas if r.task_id == task_id)

    def _live(self, index: int, bad: frozenset[str]) -> None:
        replica = self.replicas[index]
        if replica.stopping:
            del self.replicas[index]
        elif replica.deployment_id in bad:
            self.replicas[index] = replace(replica, healthy=False)
        else:
            self.replicas[index] = replace(replica, healthy=True)


@given(
    st.integers(1, 6),
    st.sampled_from([(100, 200), (50, 100), (0, 100), (50, 150), (100, 150), (None, None)]),
    st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=5, max_size=60),
    st.booleans(),
)
def test_a_deployment_never_goes_below_or_above_its_bounds_and_comes_to_an_end(
    count: int,
    percents: tuple[int | None, int | None],
    story: list[list[int]],
    fails: bool,  # noqa: FBT001
) -> None:
    low, high = percents
    configuration = {"minimumHealthyPercent": low, "maximumPercent": high}
    first = named(None, desiredCount=count, deploymentConfiguration=configuration)
    if service_problems(first.desired, FREE):
        return
    world = World(first)
    for _ in range(20):
        world.step(range(12))
    assert world.service.deployment.rollout is RolloutState.COMPLETED
    world.service = named(world.service, "web:2", desiredCount=count, deploymentConfiguration=configuration)
    world.lowest, world.most = count, 0
    bad = frozenset({"ecs-svc/web:2"}) if fails else frozenset()
    for choices in [*story, *[list(range(12))] * 60]:
        world.step(choices, bad=bad)
    least, most = limits(world.service.desired, count, FREE)
    assert world.lowest >= least
    assert world.most <= most
    assert world.service.settled
    assert world.service.rolled_back is fails
    assert len(world.replicas) == count
    assert {r.deployment_id for r in world.replicas} == {"ecs-svc/web:1" if fails else "ecs-svc/web:2"}
