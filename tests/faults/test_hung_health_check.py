"""A health check hangs: it is killed in its time and counts as failed, and the container is not touched by it."""

from pathlib import Path

import pytest

from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def hung() -> list[str]:
    """Processes of the check."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x004242\x00":
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_the_container_turns_unhealthy_and_nothing_of_the_check_is_left(stack: Stack) -> None:
    check = {"command": ["CMD", "sleep", "4242"], "interval": 5, "timeout": 2, "retries": 2}
    definition = stack.register({"name": "app", "command": ["sleep", "1000"], "healthCheck": check})
    task_id = stack.run_task(definition)
    before = stack.running()
    stack.wait("a verdict", lambda: stack.task(task_id).get("healthStatus") == "UNHEALTHY")
    assert stack.running() == before
    stack.edge("task", "stop", task_id)
    stack.wait("an end", lambda: not hung())


def test_other_containers_are_checked_meanwhile(stack: Stack) -> None:
    hangs = {"command": ["CMD", "sleep", "4242"], "interval": 5, "timeout": 60, "retries": 1}
    for number in range(3):
        stack.run_task(
            stack.register({"name": "app", "command": ["sleep", "1000"], "healthCheck": hangs}, family=f"h{number}")
        )
    well = {"command": ["CMD-SHELL", "test -e /bin/sh"], "interval": 5}
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"], "healthCheck": well}))
    stack.wait("health", lambda: stack.task(task_id).get("healthStatus") == "HEALTHY", 15)
