"""An image that is not there, a registry, a broker or a port that is not to be had, a disk that is full."""

import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.mosquitto import free_port
from tests.support.podman import PodmanService
from tests.support.stack import Stack, running_stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def test_a_registry_that_is_away_keeps_the_task_pending_and_says_why(stack: Stack) -> None:
    definition = stack.register({"name": "app", "image": f"127.0.0.1:{free_port()}/nothing:1"})
    told = stack.edge("task", "run", definition, "--no-wait").strip()
    stack.wait("the reason", lambda: "CannotPullContainerError" in stack.task(told).get("pendingReason", ""))
    assert stack.task(told)["lastStatus"] == "PENDING"
    assert "connection refused" in stack.edge("task", "describe", told)
    stack.edge("task", "stop", told)
    assert stack.task(told)["lastStatus"] == "STOPPED", "a newer intent cancels the retries"


def test_a_task_for_another_architecture_fails_with_the_reason(stack: Stack) -> None:
    other = "ARM64" if os.uname().machine == "x86_64" else "X86_64"
    definition = stack.register({"name": "app"}, runtimePlatform={"cpuArchitecture": other})
    stack.edge("task", "run", definition, expect=1)
    task = stack.status()["tasks"][0]
    assert task["stopCode"] == "TaskFailedToStart"
    assert "this device is" in task["stoppedReason"]


def test_a_fixed_port_that_somebody_else_has_is_waited_for(stack: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        mapping = [{"containerPort": 8080, "hostPort": port}]
        definition = stack.register({"name": "app", "command": ["sleep", "1000"], "portMappings": mapping})
        task_id = stack.edge("task", "run", definition, "--no-wait").strip()
        stack.wait("the reason", lambda: "address already in use" in stack.task(task_id).get("pendingReason", ""))
        assert stack.task(task_id)["lastStatus"] == "PENDING"
    task = stack.wait_status(task_id, "RUNNING")
    assert task["containers"][0]["networkBindings"][0]["hostPort"] == port
    assert "pendingReason" not in task


def test_a_dynamic_port_is_chosen_told_and_kept_over_a_restart_of_the_agent(stack: Stack) -> None:
    mapping = [{"containerPort": 8080}]
    command = ["sh", "-c", "echo hello > /tmp/index.html; httpd -f -p 8080 -h /tmp"]
    task_id = stack.run_task(stack.register({"name": "web", "command": command, "portMappings": mapping}))
    port = stack.task(task_id)["containers"][0]["networkBindings"][0]["hostPort"]

    def page() -> str:
        done = subprocess.run(
            ["busybox", "wget", "-qO-", f"http://127.0.0.1:{port}/index.html"], check=False, capture_output=True
        )
        return done.stdout.decode()

    stack.wait("the page", lambda: page() == "hello\n")
    stack.kill_agent()
    stack.start_agent()
    stack.wait_connected()
    assert stack.task(task_id)["containers"][0]["networkBindings"][0]["hostPort"] == port
    assert page() == "hello\n"


def test_what_happens_while_the_broker_is_away_is_told_when_it_is_back(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    stack.broker.kill()
    name = next(iter(stack.running()))
    stack.podman.run_cli("kill", name)
    stack.wait_status(task_id, "STOPPED")
    stack.broker.start()
    stack.wait("the report", lambda: "EssentialContainerExited" in stack.edge("task", "describe", task_id, expect=None))


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass


def test_a_full_disk_loses_nothing_and_is_told(tmp_path: Path, podman: PodmanService) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        stack = Stack(tmp_path / "stack", podman)
        toml = stack.device / "agent.toml"
        toml.write_text(toml.read_text().replace('state_dir = "state"', f'state_dir = "{small}"'))
        stack.state_dir = small
        stack.broker.start()
        stack.start_agent()
        stack.wait_connected()
        definition = stack.register({"name": "app", "command": ["sleep", "1000"]})
        first = stack.run_task(definition)
        filler = small / "filler"
        fill(filler)
        revision = stack.status()["revision"]
        second = stack.edge("task", "run", definition, "--no-wait").strip()
        stack.wait("the device to tell", lambda: "cannot write" in json.dumps(stack.json("device", "show")))
        assert stack.status()["revision"] == revision, "what is not stored is not in force"
        assert stack.task(first)["lastStatus"] == "RUNNING"
        filler.unlink()
        assert stack.wait_status(second, "RUNNING")
        stack.wait("all clear", lambda: "cannot write" not in json.dumps(stack.json("device", "show")))
        stack.kill_agent()
        stack.broker.kill()
    finally:
        podman.run_cli("rm", "--all", "--force", "--time", "0", check=False)
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_podman_that_is_not_there_is_said_at_the_task(tmp_path: Path, podman: PodmanService) -> None:
    with running_stack(tmp_path / "stack", podman) as stack:
        podman.kill()
        try:
            definition = stack.register({"name": "app", "command": ["sleep", "1000"]})
            task_id = stack.edge("task", "run", definition, "--no-wait").strip()
            stack.wait("the reason", lambda: "does not answer" in stack.task(task_id).get("pendingReason", ""))
        finally:
            podman.start()
        assert stack.wait_status(task_id, "RUNNING")
