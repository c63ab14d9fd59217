"""Services and schedules through everything real: fleet, broker, agent, Podman."""

import time

import pytest

from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
RUNS = {"name": "app", "command": ["sleep", "1000"]}
FAILS = {"name": "app", "command": ["false"]}


def service(stack: Stack, name: str = "web") -> dict[str, object]:
    found: dict[str, object] = next(
        one for one in stack.json("service", "ls")["services"] if one["serviceName"] == name
    )
    return found


def ids(stack: Stack) -> set[str]:
    return {container_id for container_id, _ in stack.running().values()}


def test_a_service_lives_without_a_broker_and_a_bad_deployment_goes_back(stack: Stack) -> None:
    stack.register(RUNS)
    stack.edge("service", "create", "web", "--task-definition", "app", "--desired-count", "2")
    before = ids(stack)
    assert len(before) == 2
    listed = stack.json("task", "ls")["tasks"]
    assert {task["origin"] for task in listed} == {"service"}
    stack.broker.kill()
    one = min(before)
    stack.podman.run_cli("kill", one)
    stack.wait("another in its place", lambda: len(ids(stack)) == 2 and one not in ids(stack))
    stack.broker.start()
    stack.wait("a report", lambda: service(stack).get("runningCount") == 2)
    kept = ids(stack)
    assert before - {one} <= kept

    stack.register(FAILS)
    stack.edge("service", "update", "web", "--task-definition", "app", expect=5)
    assert ids(stack) == kept
    told = service(stack)
    assert told["taskDefinition"].endswith("app:2")  # type: ignore[attr-defined]
    stack.edge("task", "stop", stack.json("task", "ls")["tasks"][0]["taskId"])
    stack.wait("another in its place", lambda: len(ids(stack)) == 2 and ids(stack) != kept)
    stack.edge("service", "delete", "web")
    stack.wait("the end", lambda: not ids(stack))


def test_a_schedule_starts_tasks_by_itself(stack: Stack) -> None:
    stack.register({"name": "app", "command": ["true"]})
    moment = time.gmtime(time.time() + 20)
    at = time.strftime("at(%Y-%m-%dT%H:%M:%S)", moment)
    stack.edge("schedule", "create", "once", at, "--task-definition", "app")
    (told,) = stack.json("schedule", "ls")["schedules"]
    assert told["nextTime"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", moment))
    stack.wait("its time", lambda: bool(stack.json("task", "ls", "--all")["tasks"]), 60)
    (task,) = stack.json("task", "ls", "--all")["tasks"]
    assert (task["group"], task["origin"]) == ("schedule:once", "schedule")
    stack.edge("schedule", "delete", "once")
    assert stack.json("schedule", "ls")["schedules"] == []
