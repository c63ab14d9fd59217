from dataclasses import replace

import pytest

from edge.model import lifecycle
from edge.model.plan import (
    CreateContainer,
    FetchImage,
    ReleaseTask,
    RemoveContainer,
    StartContainer,
    Step,
    StopContainer,
    key_of,
    plan,
)
from edge.model.task import StopCode, Task
from tests.support.tasks import NOW, TASK_ID, container_definition, make_task


def steps(*tasks: Task, busy: tuple[tuple[str, str], ...] = (), expired: tuple[str, ...] = ()) -> list[Step]:
    return plan(tasks, busy=busy, expired=expired)


def at(task: Task, stage: str, name: str = "app") -> Task:
    if stage in ("pulled", "created", "running"):
        task = lifecycle.pulled(task, name, "a", "b")
    if stage in ("created", "running"):
        task = lifecycle.created(task, name, "f" * 64, "boot-1")
    if stage == "running":
        task = lifecycle.running(task, name, "f" * 64, "boot-1", NOW)
    return task


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("none", [FetchImage(TASK_ID, "app")]),
        ("pulled", [CreateContainer(TASK_ID, "app")]),
        ("created", [StartContainer(TASK_ID, "app")]),
        ("running", []),
    ],
)
def test_a_container_takes_one_step_after_the_other(stage: str, expected: list[Step]) -> None:
    assert steps(at(make_task(), stage)) == expected


@pytest.mark.parametrize("stage", ["pulled", "created", "running"])
def test_a_task_that_should_stop_has_its_containers_stopped_wherever_they_are(stage: str) -> None:
    task = lifecycle.stop(at(make_task(), stage), NOW, StopCode.USER_INITIATED, "enough")
    assert steps(task) == [StopContainer(TASK_ID, "app")]


def test_what_is_busy_waits() -> None:
    assert steps(make_task(), busy=((TASK_ID, "app"),)) == []


def test_a_container_waits_for_those_whose_volumes_it_mounts() -> None:
    user = container_definition("user", volumesFrom=[{"sourceContainer": "data"}])
    task = at(at(make_task(user, container_definition("data")), "pulled", "user"), "pulled", "data")
    assert steps(task) == [CreateContainer(TASK_ID, "data")]
    task = at(task, "created", "data")
    assert steps(task) == [CreateContainer(TASK_ID, "user"), StartContainer(TASK_ID, "data")]


def test_what_the_engine_has_by_mistake_is_removed_before_it_is_made_again() -> None:
    task = lifecycle.again(at(make_task(), "created"), "app", discard=True)
    assert steps(task) == [RemoveContainer(TASK_ID, "app")]
    assert steps(lifecycle.removed(task, "app")) == [FetchImage(TASK_ID, "app")]


def test_a_stopped_task_is_kept_to_be_looked_at_and_then_cleaned_away() -> None:
    task = lifecycle.stop(at(make_task(), "created"), NOW, StopCode.USER_INITIATED, "enough")
    task = lifecycle.stopped(task, "app", NOW)
    assert steps(task) == []
    assert steps(task, expired=(TASK_ID,)) == [RemoveContainer(TASK_ID, "app")]
    task = lifecycle.removed(task, "app")
    assert steps(task, expired=(TASK_ID,)) == [], "the desired state still names it: it must not begin again"
    assert steps(replace(task, wanted=False), expired=(TASK_ID,)) == [ReleaseTask(TASK_ID)]


def test_nothing_is_done_twice_at_once() -> None:
    task = make_task(container_definition("app"), container_definition("side"))
    first = steps(task)
    assert steps(task, busy=tuple(key_of(step) for step in first)) == []
