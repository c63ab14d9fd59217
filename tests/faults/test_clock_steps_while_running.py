"""The device's clock is wrong, and steps while it runs: it connects, works, restarts; times are set right later."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.killed_agent import TELEMETRY, collector, missing
from tests.support.played_agent import PROGRAM, WallClock
from tests.support.podman import PodmanService
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto, pytest.mark.timeout(180)]
WRONG = (
    datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC),
    # Five seconds before the seconds since 1970 have no room in 32 bits.
    datetime(2038, 1, 19, 3, 14, 2, tzinfo=UTC),
    datetime(2099, 12, 31, 23, 59, 55, tzinfo=UTC),
)
RUNS = {"name": "app", "command": ["sleep", "1000"]}
STEPS = 20


@pytest.fixture
def clock(stack: Stack) -> WallClock:
    """Of the device; its agent does not run yet."""
    stack.kill_agent()
    toml = stack.device / "agent.toml"
    toml.write_text(toml.read_text() + TELEMETRY)
    return WallClock(stack.folder)


def times(stack: Stack) -> list[datetime]:
    lines = stack.edge("telemetry", "export", "--stream", "metrics").splitlines()
    told = [json.loads(line) for line in lines]
    return [datetime.fromisoformat(one["time"]) for one in told if one["time"] and one["timeIsCertain"]]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda moment: str(moment.year))
def test_a_device_that_begins_with_a_wrong_clock_connects_and_works(
    stack: Stack, podman: PodmanService, clock: WallClock, wrong: datetime
) -> None:
    began = datetime.now(UTC)
    clock.wrong(wrong)
    stack.start_agent(program=PROGRAM, environment=clock.environment)
    stack.wait_connected()
    task_id = stack.run_task(stack.register(RUNS | {"restartPolicy": {"enabled": True}}))
    container_id, _ = next(iter(stack.running().values()))
    time.sleep(5)
    podman.run_cli("kill", container_id)
    stack.wait("a restart", lambda: stack.task(task_id)["containers"][0].get("restartCount") == 1)
    stack.wait("the same to run", lambda: [one[0] for one in stack.running().values()] == [container_id])

    clock.right()
    with collector(stack):
        stack.wait("records", lambda: len(times(stack)) > 10)
        stack.wait("all of them", lambda: not missing(stack))
    assert min(times(stack)) > began - timedelta(seconds=5), "those from before it was set, too"
    assert max(times(stack)) < datetime.now(UTC) + timedelta(seconds=5)


def test_a_clock_that_steps_all_the_time_changes_nothing(stack: Stack, podman: PodmanService, clock: WallClock) -> None:
    stack.start_agent(program=PROGRAM, environment=clock.environment)
    stack.wait_connected()
    stack.register(RUNS, family="web")
    stack.edge("service", "create", "web", "--task-definition", "web", "--desired-count", "2")
    stack.wait("two tasks", lambda: len(stack.running()) == 2)
    before = {container_id for container_id, _ in stack.running().values()}
    with collector(stack):
        for step in range(STEPS):
            if step % 4 == 3:
                clock.right()
            else:
                clock.wrong(WRONG[step % 4])
            if step == STEPS // 2:
                stack.broker.stop()
                stack.broker.start()
            time.sleep(0.5)
        assert {container_id for container_id, _ in stack.running().values()} == before
        podman.run_cli("kill", before.pop())
        stack.wait("the other is kept, and one is new", lambda: len(stack.running()) == 2)
        assert before <= {container_id for container_id, _ in stack.running().values()}
        stack.wait_connected()
        clock.right()
        stack.wait("everything to arrive", lambda: not missing(stack))
    assert stack.run_task("web:1"), "it takes orders"
