"""The device restarts, and there is no network: what should run is started again."""

import pytest

from tests.support.podman import PodmanService
from tests.support.rebooting import reboot
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def test_after_a_reboot_without_a_network_the_same_container_runs_again(stack: Stack, podman: PodmanService) -> None:
    definition = stack.register({"name": "app", "command": ["sleep", "1000"]})
    task_id = stack.run_task(definition)
    before = stack.running()
    reboot(stack, podman, "boot-2")

    def again() -> bool:
        return bool(stack.running()) and stack.task(task_id).get("lastStatus") == "RUNNING"

    stack.wait("the task to run again", again)
    after = stack.running()
    assert {name: c[0] for name, c in after.items()} == {name: c[0] for name, c in before.items()}
    assert len(stack.containers()) == 1
    assert stack.status()["connection"]["connected"] is False


def test_what_had_ended_before_the_reboot_does_not_begin_again(stack: Stack, podman: PodmanService) -> None:
    definition = stack.register({"name": "app", "command": ["sh", "-c", "exit 3"]})
    stack.edge("task", "run", definition, expect=None)
    task_id = stack.status()["tasks"][0]["taskId"]
    stack.wait_status(task_id, "STOPPED")
    reboot(stack, podman, "boot-2")
    stack.wait("the agent to look", lambda: stack.status()["running"])
    task = stack.wait_status(task_id, "STOPPED")
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("EssentialContainerExited", 3)
    assert stack.running() == {}
