"""Agent and Podman's service die together; containers go on, and are found again by their labels."""

import pytest

from tests.support.podman import PodmanService
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def test_containers_do_not_notice_that_both_died(stack: Stack, podman: PodmanService) -> None:
    definition = stack.register(
        {"name": "app", "command": ["sleep", "1000"]}, {"name": "side", "command": ["sleep", "1000"]}
    )
    task_id = stack.run_task(definition)
    before = stack.running()
    assert len(before) == 2
    stack.kill_agent()
    podman.kill()
    podman.start()
    stack.start_agent()
    stack.wait_connected()
    assert stack.wait_status(task_id, "RUNNING")
    assert stack.running() == before


def test_an_exit_while_both_were_dead_is_told_with_its_code(stack: Stack, podman: PodmanService) -> None:
    definition = stack.register({"name": "app", "command": ["sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait"]})
    task_id = stack.run_task(definition)
    stack.kill_agent()
    name, (_, _) = next(iter(stack.running().items()))
    podman.kill()
    podman.run_cli("kill", "--signal", "TERM", name)
    podman.start()
    stack.start_agent()
    task = stack.wait_status(task_id, "STOPPED")
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("EssentialContainerExited", 7)


def test_a_stopped_agent_leaves_its_containers_running(stack: Stack) -> None:
    stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before = stack.running()
    assert stack.stop_agent() == 0
    assert stack.running() == before


def test_the_state_file_is_lost_and_the_containers_are_adopted(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before = stack.running()
    stack.kill_agent()
    for file in stack.state_dir.glob("state.db*"):
        file.unlink()
    stack.start_agent()
    stack.wait_status(task_id, "RUNNING")
    assert stack.running() == before


def test_a_container_of_no_task_is_removed_only_when_a_valid_document_does_not_name_it(stack: Stack) -> None:
    first = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    stack.kill_agent()
    for file in stack.state_dir.glob("state.db*"):
        file.unlink()
    stack.broker.kill()
    stack.start_agent()
    stack.wait("the agent to look", lambda: stack.status()["running"])
    assert len(stack.running()) == 1, "without a desired state nothing is removed"
    stack.broker.start()
    stack.edge("task", "stop", first, "--no-wait")
    stack.wait("the container to be stopped", lambda: not stack.running())
