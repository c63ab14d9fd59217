"""Schedules on a device nobody reaches."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.island import Island

EVERY_TEN = {"name": "probe", "scheduleExpression": "rate(10 minutes)", "taskDefinition": "web:1"}


@pytest.fixture
def island(tmp_path: Path) -> Island:
    return Island(tmp_path)


def begun(island: Island) -> list[str]:
    """When each task there is was due."""
    return sorted(task.started_by.rpartition("T")[2] for task in island.reconciler.tasks.values())


def end_all(island: Island) -> None:
    for task in island.tasks():
        island.crash(task.task_id, 0)


def test_tasks_begin_at_their_times(island: Island) -> None:
    island.assign(schedules=[EVERY_TEN | {"taskCount": 2}])
    island.wait(599)
    assert island.tasks() == []
    island.wait(1)
    assert begun(island) == ["001000Z", "001000Z"]
    assert {task.group for task in island.tasks()} == {"schedule:probe"}


def test_a_time_is_left_out_while_the_last_task_still_runs(island: Island) -> None:
    island.assign(schedules=[EVERY_TEN])
    island.wait(1200, step=10)
    assert begun(island) == ["001000Z"]
    assert island.schedules.describe()[0]["missed"] == 1
    end_all(island)
    island.wait(600, step=10)
    assert begun(island) == ["001000Z", "003000Z"]


def test_with_overlap_it_begins_all_the_same(island: Island) -> None:
    island.assign(schedules=[EVERY_TEN | {"overlap": "ALLOW"}])
    island.wait(1200, step=10)
    assert len(island.tasks()) == 2


def test_what_was_missed_while_the_device_was_off_is_caught_up_with_once(island: Island) -> None:
    island.assign(schedules=[EVERY_TEN])
    island.wait(600, step=10)
    end_all(island)
    island.clock.wall += timedelta(hours=2, minutes=5)
    island.restart_agent(boot="boot-2")
    assert begun(island) == ["001000Z", "021000Z"]
    assert island.schedules.describe()[0]["missed"] == 11


@pytest.mark.parametrize("boot", ["", "boot-2"])
def test_no_time_begins_twice_whatever_is_restarted(island: Island, boot: str) -> None:
    island.assign(schedules=[EVERY_TEN])
    island.wait(600, step=10)
    end_all(island)
    island.restart_agent(boot=boot)
    island.wait(300, step=10)
    assert begun(island) == ["001000Z"]


@pytest.mark.parametrize("wrong", ["1970-01-01T00:00:00Z", "2038-01-19T03:14:07Z", "2099-01-01T00:00:00Z"])
def test_a_wrong_clock_starts_at_most_one_task_and_stops_none(island: Island, wrong: str) -> None:
    island.assign(schedules=[EVERY_TEN | {"overlap": "ALLOW"}], services=[{"serviceName": "web"}])
    island.wait(600, step=10)
    before = {task.task_id for task in island.tasks()}
    right = island.clock.wall
    island.clock.good, island.clock.wall = False, right.fromisoformat(wrong)
    island.wait(60, step=10)
    assert before <= {task.task_id for task in island.tasks()}
    assert len(island.tasks()) <= len(before) + 1
    island.clock.good, island.clock.wall = True, right + timedelta(minutes=1)
    island.wait(1200, step=10)
    times = begun(island)
    assert {"001000Z", "002000Z", "003000Z"} <= set(times)
    assert before <= {task.task_id for task in island.tasks()}


def test_a_schedule_that_is_gone_starts_nothing_and_stops_nothing(island: Island) -> None:
    island.assign(schedules=[EVERY_TEN])
    island.wait(600, step=10)
    (task,) = island.tasks()
    island.assign()
    island.wait(1200, step=10)
    assert [one.task_id for one in island.tasks()] == [task.task_id]
