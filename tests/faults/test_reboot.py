"""The device restarts, and there is no network: what should run is started again."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.podman import PodmanService
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def reboot(stack: Stack, podman: PodmanService, boot_id: str) -> None:
    """Everything that runs is gone at once, and so is what lies in memory; the network does not come back."""
    stack.broker.kill()
    stack.kill_agent()
    for container_id, _ in stack.running().values():
        for process in processes_of(container_id):
            os.kill(process, signal.SIGKILL)
        # What the OCI runtime knows lies in /run, which a reboot empties.
        shutil.rmtree(Path("/run/runc") / container_id, ignore_errors=True)
    podman.kill()
    for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
        if line.split()[1].startswith(str(podman.folder)):
            assert os.system(f"umount -l {line.split()[1]}") == 0
    shutil.rmtree(podman.folder / "run")
    shutil.rmtree(podman.folder / "tmp")
    podman.start()
    os.environ["EDGE_TEST_BOOT_ID"] = boot_id
    stack.start_agent(program=("-m", "tests.support.rebooted_agent"))


def processes_of(container_id: str) -> list[int]:
    """The container's processes and its conmon, which would record the exit otherwise: a power cut records nothing."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
                group = (entry / "cgroup").read_text()
            except OSError:
                continue
            if container_id in group or (b"conmon" in command and container_id.encode() in command):
                found.append(int(entry.name))
    # conmon first.
    return sorted(found)


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
