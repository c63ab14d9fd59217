"""The link is cut, containers die, the device restarts, the link comes back.

AWS's sample for ECS Anywhere (eINS) restarts what dies while the link is away, and stops and removes it when the link
is back. Here nothing is removed, and what ran when the link came back runs on: the same containers.
"""

import sys
import time

import pytest

from tests.support.podman import PodmanService
from tests.support.rebooting import reboot
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
RUNS = {"name": "app", "command": ["sleep", "1000"]}


def test_what_ran_runs_again_within_seconds_and_nothing_is_removed(stack: Stack, podman: PodmanService) -> None:
    stack.register(RUNS, family="web")
    stack.edge("service", "create", "web", "--task-definition", "web", "--desired-count", "2")
    restarting = RUNS | {"restartPolicy": {"enabled": True}}
    single = stack.run_task(stack.register(restarting, family="single"))
    before = {name: container_id for name, (container_id, _) in stack.running().items()}
    assert len(before) == 3

    stack.broker.kill()
    downtimes = []
    for name, container_id in before.items():
        began = time.monotonic()
        podman.run_cli("kill", container_id)
        stack.wait(f"{name} is replaced", lambda: len(stack.running()) == 3)
        downtimes.append(time.monotonic() - began)
    own = stack.task(single)["containers"][0]
    assert own["runtimeId"] in before.values()
    assert own["restartCount"] == 1

    kept = {container_id for container_id, _ in stack.running().values()}
    began = time.monotonic()
    reboot(stack, podman, "boot-2")
    stack.wait("all run again", lambda: len(stack.running()) == 3)
    after_reboot = time.monotonic() - began
    assert {container_id for container_id, _ in stack.running().values()} == kept

    stack.broker.start()
    stack.wait_connected()
    stack.wait("the fleet knows", lambda: len(stack.json("task", "ls")["tasks"]) == 3)
    time.sleep(3)
    assert {container_id for container_id, _ in stack.running().values()} == kept
    killed = ", ".join(f"{seconds:.1f}" for seconds in downtimes)
    # Shown by pytest -rP, for docs/offline.md.
    sys.stdout.write(
        f"seconds without a container: killed {killed}; device restarted {after_reboot:.1f}; link back 0\n"
    )
    sys.stdout.write(f"containers before and after the link came back: {' '.join(sorted(kept))}\n")
