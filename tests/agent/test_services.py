"""Services on a device nobody reaches: their numbers, their deployments, and what a restart remembers."""

from pathlib import Path

import pytest

from edge.model.task import StopCode, TaskStatus
from tests.support.island import Island

WEB = {"serviceName": "web", "taskDefinition": "web:1"}
WEB2 = WEB | {"taskDefinition": "web:2"}


@pytest.fixture
def island(tmp_path: Path) -> Island:
    return Island(tmp_path)


def outcome(island: Island) -> tuple[str, str]:
    service = island.services.describe()[0]
    primary = service["deployments"][0]
    return primary["taskDefinition"].rpartition("/")[2], primary["rolloutState"]


def test_a_service_runs_as_many_tasks_as_it_should(island: Island) -> None:
    island.assign(services=[WEB | {"desiredCount": 3}])
    assert island.running() == ["web:1"] * 3
    island.assign(services=[WEB | {"desiredCount": 1}])
    island.turn()
    assert island.running() == ["web:1"]
    island.assign()
    island.turn()
    assert (island.running(), island.services.describe()) == ([], [])


def test_a_task_that_ends_is_replaced_and_no_other_is_touched(island: Island) -> None:
    island.assign(services=[WEB | {"desiredCount": 2}])
    first, second = island.tasks()
    island.crash(first.task_id)
    island.wait(2)
    after = {task.task_id for task in island.tasks()}
    assert len(after) == 2
    assert second.task_id in after
    assert first.task_id not in after


def test_a_task_that_was_stopped_by_somebody_is_replaced_without_counting_as_failed(island: Island) -> None:
    island.assign(services=[WEB])
    (task,) = island.tasks()
    island.reconciler.stop(task.task_id, StopCode.USER_INITIATED, "no more")
    island.turn()
    assert island.running() == ["web:1"]
    assert island.services.describe()[0]["failures"] == 0


def test_tasks_that_keep_failing_are_started_ever_more_seldom(island: Island) -> None:
    island.hands.broken = {"web:1"}
    island.assign(services=[WEB])
    island.wait(60)
    in_a_minute = island.hands.starts
    island.wait(1800, step=5)
    later = island.hands.starts - in_a_minute
    assert 4 <= in_a_minute <= 20
    assert later <= 40
    assert outcome(island) == ("web:1", "FAILED")
    island.hands.broken = set()
    island.wait(320, step=5)
    assert outcome(island) == ("web:1", "COMPLETED")


def test_the_caution_of_a_crash_loop_is_remembered_over_a_reboot(island: Island) -> None:
    island.hands.broken = {"web:1"}
    island.assign(services=[WEB])
    island.wait(300)
    before = island.services.describe()[0]["failures"]
    starts = island.hands.starts
    island.restart_agent(boot="boot-2")
    island.wait(30)
    assert island.services.describe()[0]["failures"] >= before
    assert island.hands.starts - starts <= 5


def test_a_deployment_replaces_tasks_and_says_when_it_is_complete(island: Island) -> None:
    island.assign(services=[WEB | {"desiredCount": 2}])
    island.wait(11)
    assert outcome(island) == ("web:1", "COMPLETED")
    island.assign(services=[WEB2 | {"desiredCount": 2}])
    assert island.running() == ["web:1", "web:1", "web:2", "web:2"]
    island.wait(12)
    assert (island.running(), outcome(island)) == (["web:2", "web:2"], ("web:2", "COMPLETED"))
    assert island.services.settled
    names = [event for event in island.events if event.startswith("SERVICE")]
    assert names == ["SERVICE_DEPLOYMENT_IN_PROGRESS", "SERVICE_DEPLOYMENT_COMPLETED"] * 2


def test_a_bad_revision_gives_way_to_the_old_one_whose_task_never_stopped(island: Island) -> None:
    island.assign(services=[WEB])
    island.wait(11)
    (good,) = island.tasks()
    island.hands.broken = {"web:2"}
    island.assign(services=[WEB2])
    island.wait(60)
    assert [task.task_id for task in island.tasks()] == [good.task_id]
    assert outcome(island) == ("web:1", "COMPLETED")
    (problem,) = island.services.rolled_back()
    assert "web:2 had 3 tasks that failed" in problem.message


@pytest.mark.parametrize("boot", ["", "boot-2"])
def test_a_bad_revision_is_remembered_and_not_tried_again_until_a_newer_one_comes(island: Island, boot: str) -> None:
    island.assign(services=[WEB])
    island.wait(11)
    island.hands.broken = {"web:2"}
    island.assign(services=[WEB2])
    island.wait(60)
    starts = island.hands.starts
    island.restart_agent(boot=boot)
    island.assign(services=[WEB2])
    island.wait(60)
    assert island.hands.starts - starts == (1 if boot else 0)
    assert island.running() == ["web:1"]
    island.assign(services=[WEB | {"taskDefinition": "web:3"}])
    island.wait(30)
    assert (island.running(), outcome(island)) == (["web:3"], ("web:3", "COMPLETED"))


def test_a_deployment_is_taken_up_where_it_was_when_the_agent_dies_in_it(island: Island) -> None:
    island.assign(services=[WEB | {"desiredCount": 2}])
    island.wait(11)
    island.assign(services=[WEB2 | {"desiredCount": 2}])
    before = {task.task_id for task in island.tasks()}
    island.restart_agent()
    assert {task.task_id for task in island.tasks()} == before
    island.wait(12)
    assert island.running() == ["web:2", "web:2"]


def test_images_of_a_deployment_are_decided_once_and_those_of_a_return_are_kept(island: Island) -> None:
    island.assign(services=[WEB])
    island.wait(11)
    (task,) = island.tasks()
    island.crash(task.task_id)
    island.wait(2)
    assert island.hands.fetched == ["registry.example/app:1", "registry.example/app@sha256:" + "1" * 64]
    island.assign(services=[WEB2])
    island.wait(12)
    assert island.services.images_kept() == {"1" * 64, "2" * 64}


def test_a_service_task_is_no_business_of_the_desired_state_and_is_forgotten_in_the_end(island: Island) -> None:
    island.assign(services=[WEB])
    (task,) = island.tasks()
    island.crash(task.task_id)
    island.wait(1100, step=10)
    assert task.task_id not in island.reconciler.tasks
    assert island.running() == ["web:1"]


def test_after_a_reboot_the_same_tasks_run_again(island: Island) -> None:
    island.assign(services=[WEB | {"desiredCount": 2}])
    island.wait(11)
    before = {task.task_id for task in island.tasks()}
    island.restart_agent(boot="boot-2")
    assert {task.task_id for task in island.tasks()} == before
    assert all(task.last_status is TaskStatus.RUNNING for task in island.tasks())
