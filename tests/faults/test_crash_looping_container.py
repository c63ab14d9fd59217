"""A container ends as soon as it starts, again and again: nobody else is disturbed, and the device has its peace."""

import time

import pytest

from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def test_it_is_started_ever_more_seldom_and_the_others_run_on(stack: Stack) -> None:
    quiet = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}, family="quiet"))
    before = stack.running()
    loops = {"name": "app", "command": ["false"], "restartPolicy": {"enabled": True}}
    begun = stack.json("task", "run", stack.register(loops, family="loops"), "--no-wait")
    task_id = begun["tasks"][0]["taskId"]

    def restarts() -> int:
        return int(stack.task(task_id).get("containers", [{}])[0].get("restartCount", 0))

    stack.wait("some restarts", lambda: restarts() >= 3)
    first, container = restarts(), stack.task(task_id)["containers"][0]["runtimeId"]
    stack.kill_agent()
    stack.start_agent()
    time.sleep(10)
    assert restarts() - first <= 6
    assert stack.task(task_id)["containers"][0]["runtimeId"] == container
    assert stack.task(task_id)["containers"][0]["exitCode"] == 1
    assert stack.task(quiet)["lastStatus"] == "RUNNING"
    assert before.items() <= stack.running().items()
    stack.edge("task", "stop", task_id)
    assert stack.task(task_id)["lastStatus"] == "STOPPED"
