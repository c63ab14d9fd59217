"""Restarts, dependencies and health of a task's containers, on a device nobody reaches."""

from pathlib import Path
from typing import Any

import pytest

from edge.agent.store.state import Change
from edge.model.documents import DesiredStatus
from edge.model.health import health_of
from edge.model.task import Health, StopCode, Task, TaskStatus
from tests.support.island import Island
from tests.support.tasks import container_definition as container

RESTARTS: dict[str, Any] = {"restartPolicy": {"enabled": True}}
CHECK: dict[str, Any] = {"healthCheck": {"command": ["CMD", "true"], "interval": 10, "retries": 2}}


@pytest.fixture
def island(tmp_path: Path) -> Island:
    return Island(tmp_path)


def task_of(island: Island, task_id: str) -> Task:
    return island.reconciler.tasks[task_id]


def waits(name: str, condition: str) -> dict[str, Any]:
    return {"dependsOn": [{"containerName": name, "condition": condition}]}


# --- restarts


def test_a_container_that_ends_is_started_again_in_its_place(island: Island) -> None:
    task_id = island.run(container("app", **RESTARTS))
    before = task_of(island, task_id).container("app").runtime_id
    island.wait(400, step=10)
    island.crash(task_id, 3)
    after = task_of(island, task_id).container("app")
    assert (after.runtime_id, after.status.name, after.restarts, after.exit_code) == (before, "RUNNING", 1, 3)


@pytest.mark.parametrize("policy", [{}, {"restartPolicy": {"enabled": False}}])
def test_without_a_policy_the_task_ends_with_it(island: Island, policy: dict[str, Any]) -> None:
    task_id = island.run(container("app", **policy))
    island.crash(task_id)
    assert task_of(island, task_id).stop_code is StopCode.ESSENTIAL_CONTAINER_EXITED


def test_an_ignored_exit_code_ends_it_for_good(island: Island) -> None:
    task_id = island.run(container("app", restartPolicy={"enabled": True, "ignoredExitCodes": [0]}))
    island.crash(task_id, 0)
    assert task_of(island, task_id).last_status is TaskStatus.STOPPED


def test_one_that_keeps_ending_is_started_ever_more_seldom_and_its_events_are_bounded(island: Island) -> None:
    island.hands.broken = {"job:1"}
    task_id = island.run(container("app", **RESTARTS))
    island.wait(3600, step=1)
    starts = island.hands.starts
    assert 15 <= starts <= 60
    assert task_of(island, task_id).container("app").restarts in (starts, starts - 1)
    assert len(island.events) <= 12
    island.hands.broken = set()
    island.wait(301, step=1)
    assert island.statuses(task_id) == {"app": "RUNNING"}


@pytest.mark.parametrize("boot", ["", "boot-2"])
def test_the_wait_of_a_crash_loop_outlives_the_agent_and_a_reboot(island: Island, boot: str) -> None:
    island.hands.broken = {"job:1"}
    task_id = island.run(container("app", **RESTARTS))
    island.wait(1200)
    known, starts = task_of(island, task_id).container("app").restarts, island.hands.starts
    island.restart_agent(boot=boot)
    island.wait(120)
    after = task_of(island, task_id).container("app").restarts
    assert after - known == island.hands.starts - starts
    assert island.hands.starts - starts <= 3


def test_having_run_for_the_period_makes_the_next_start_quick_again(island: Island) -> None:
    island.hands.broken = {"job:1"}
    task_id = island.run(container("app", restartPolicy={"enabled": True, "restartAttemptPeriod": 60}))
    island.wait(600)
    island.hands.broken = set()
    island.wait(400)
    island.crash(task_id)
    assert task_of(island, task_id).container("app").quick_ends == 0
    assert island.statuses(task_id) == {"app": "RUNNING"}


def test_a_task_told_to_stop_stops_at_once_also_while_it_waits(island: Island) -> None:
    island.hands.broken = {"job:1"}
    task_id = island.run(container("app", **RESTARTS))
    island.wait(600)
    island.reconciler.stop(task_id, StopCode.USER_INITIATED, "enough")
    island.turn()
    assert task_of(island, task_id).last_status is TaskStatus.STOPPED


def test_a_reboot_is_no_end_of_its_own(island: Island) -> None:
    task_id = island.run(container("app", **RESTARTS))
    island.restart_agent(boot="boot-2")
    found = task_of(island, task_id).container("app")
    assert (found.status.name, found.restarts) == ("RUNNING", 0)


# --- dependencies


def test_start_waits_until_the_other_runs(island: Island) -> None:
    task_id = island.run(container("app", **waits("db", "START")), container("db"))
    assert island.statuses(task_id) == {"app": "RUNNING", "db": "RUNNING"}


@pytest.mark.parametrize(
    ("condition", "code", "runs"), [("COMPLETE", 0, True), ("COMPLETE", 3, True), ("SUCCESS", 0, True)]
)
def test_complete_and_success_wait_for_the_end(island: Island, condition: str, code: int, runs: bool) -> None:  # noqa: FBT001
    task_id = island.run(container("app", **waits("init", condition)), container("init", essential=False))
    assert island.statuses(task_id) == {"app": "CREATED", "init": "RUNNING"}
    island.crash(task_id, code, "init")
    assert island.statuses(task_id) == {"app": "RUNNING" if runs else "CREATED", "init": "STOPPED"}


def test_a_success_that_never_comes_ends_the_task_with_the_reason(island: Island) -> None:
    task_id = island.run(container("app", **waits("init", "SUCCESS")), container("init", essential=False))
    island.crash(task_id, 3, "init")
    task = task_of(island, task_id)
    assert (task.last_status, task.stop_code) == (TaskStatus.STOPPED, StopCode.TASK_FAILED_TO_START)
    assert "container app depends on init being SUCCESS, and it exited with 3" in task.stopped_reason


def test_healthy_waits_for_the_checks(island: Island) -> None:
    island.hands.sick = {"db"}
    task_id = island.run(container("app", **waits("db", "HEALTHY")), container("db", **CHECK))
    island.wait(8)
    assert island.statuses(task_id) == {"app": "CREATED", "db": "RUNNING"}
    island.hands.sick = set()
    island.wait(12)
    assert island.statuses(task_id) == {"app": "RUNNING", "db": "RUNNING"}


def test_a_start_timeout_ends_the_wait_and_the_task(island: Island) -> None:
    island.hands.sick = {"db"}
    task_id = island.run(container("app", **waits("db", "HEALTHY")), container("db", startTimeout=30, **CHECK))
    island.wait(29)
    assert task_of(island, task_id).desired_status is DesiredStatus.RUNNING
    island.wait(2)
    task = task_of(island, task_id)
    assert (task.last_status, task.stop_code) == (TaskStatus.STOPPED, StopCode.TASK_FAILED_TO_START)
    assert "not within its startTimeout" in task.stopped_reason


def test_a_task_stops_in_reverse_order(island: Island, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = island.run(
        container("db"), container("app", **waits("db", "START")), container("web", **waits("app", "START"))
    )
    order: list[str] = []
    end = island.hands.end

    def noted(one: str, name: str, code: int) -> None:
        order.append(name)
        end(one, name, code)

    monkeypatch.setattr(island.hands, "end", noted)
    island.reconciler.stop(task_id, StopCode.USER_INITIATED, "")
    island.turn()
    assert order == ["web", "app", "db"]


def test_after_a_reboot_the_order_holds_again(island: Island) -> None:
    task_id = island.run(container("app", **waits("db", "HEALTHY")), container("db", **CHECK))
    island.wait(2)
    assert island.statuses(task_id) == {"app": "RUNNING", "db": "RUNNING"}
    island.hands.sick = {"db"}
    island.restart_agent(boot="boot-2")
    island.wait(5)
    assert island.statuses(task_id) == {"app": "CREATED", "db": "RUNNING"}
    island.hands.sick = set()
    island.wait(12)
    assert island.statuses(task_id) == {"app": "RUNNING", "db": "RUNNING"}


# --- health


def test_health_follows_the_checks(island: Island) -> None:
    task_id = island.run(container("app", **CHECK), container("side", essential=False, **CHECK))
    assert health_of(task_of(island, task_id)) is Health.UNKNOWN
    island.wait(2)
    assert health_of(task_of(island, task_id)) is Health.HEALTHY
    island.hands.sick = {"side"}
    island.wait(60)
    assert task_of(island, task_id).container("side").health is Health.UNHEALTHY
    assert health_of(task_of(island, task_id)) is Health.HEALTHY
    island.hands.sick = {"app"}
    island.wait(11)
    assert health_of(task_of(island, task_id)) is Health.HEALTHY
    island.wait(11)
    assert health_of(task_of(island, task_id)) is Health.UNHEALTHY
    assert task_of(island, task_id).last_status is TaskStatus.RUNNING
    island.hands.sick = set()
    island.wait(11)
    assert health_of(task_of(island, task_id)) is Health.HEALTHY


def test_failures_in_the_start_period_do_not_count(island: Island) -> None:
    check = {"healthCheck": CHECK["healthCheck"] | {"startPeriod": 60}}
    island.hands.sick = {"app"}
    task_id = island.run(container("app", **check))
    island.wait(59)
    assert health_of(task_of(island, task_id)) is Health.UNKNOWN
    island.wait(25)
    assert health_of(task_of(island, task_id)) is Health.UNHEALTHY


def test_an_agent_that_was_restarted_believes_the_last_word_until_the_next_check(island: Island) -> None:
    task_id = island.run(container("app", **CHECK))
    island.wait(2)
    island.hands.sick = {"app"}
    island.restart_agent()
    assert health_of(task_of(island, task_id)) is Health.HEALTHY
    island.wait(13)
    assert health_of(task_of(island, task_id)) is Health.UNHEALTHY


def test_checks_that_say_the_same_cost_no_write(island: Island, monkeypatch: pytest.MonkeyPatch) -> None:
    island.run(container("app", **CHECK))
    island.wait(15)
    commits: list[Change] = []
    monkeypatch.setattr(island.store, "commit", commits.append)
    island.wait(300)
    assert commits == []


def test_an_unhealthy_task_of_a_service_is_replaced(island: Island) -> None:
    island.assign(services=[{"serviceName": "web"}], **CHECK)
    island.wait(5)
    (first,) = island.tasks()
    island.hands.sick = {"web:1"}
    island.wait(22)
    stopped = task_of(island, first.task_id)
    assert (stopped.stop_code, stopped.stopped_reason) == (
        StopCode.SERVICE_SCHEDULER_INITIATED,
        "Task failed container health checks",
    )
    island.hands.sick = set()
    island.wait(5)
    assert island.running() == ["web:1"]


def test_a_deployment_whose_checks_fail_goes_back(island: Island) -> None:
    island.assign(services=[{"serviceName": "web"}], **CHECK)
    island.wait(5)
    (good,) = island.tasks()
    island.hands.sick = {"web:2"}
    island.assign(services=[{"serviceName": "web", "taskDefinition": "web:2"}], **CHECK)
    island.wait(200)
    assert [task.task_id for task in island.tasks()] == [good.task_id]
    assert island.services.rolled_back()
