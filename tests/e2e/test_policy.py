"""A signed task asks for more than the device's owner allows: real agent, real Podman."""

import json
from pathlib import Path

import pytest

from tests.support.podman import PodmanService
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SLEEPS = {"name": "app", "command": ["sleep", "1000"]}
MOUNTED = {"mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}]}


def host(path: Path) -> list[dict[str, object]]:
    return [{"name": "data", "host": {"sourcePath": str(path)}}]


def allow(stack: Stack, policy: str) -> None:
    stack.kill_agent()
    stack.allow(policy)
    stack.start_agent()
    stack.wait_connected()


def test_what_is_not_allowed_is_refused_by_the_device_and_nothing_else_changes(stack: Stack, tmp_path: Path) -> None:
    running = stack.run_task(stack.register(SLEEPS))
    bad = stack.register(SLEEPS | MOUNTED, family="bad", volumes=host(tmp_path))
    with pytest.raises(AssertionError, match=r"(?s)host\.sourcePath.*policy\.host_paths"):
        stack.edge("task", "run", bad)
    assert stack.task(running)["lastStatus"] == "RUNNING"
    assert len(stack.containers()) == 1


def test_an_allowed_folder_that_leads_elsewhere_is_not_mounted(stack: Stack, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "way-out").symlink_to("/etc")
    allow(stack, f'host_paths = ["{allowed}"]')
    good = stack.run_task(stack.register(SLEEPS | MOUNTED, family="good", volumes=host(allowed)))
    assert stack.task(good)["lastStatus"] == "RUNNING"
    out = stack.register(SLEEPS | MOUNTED, family="out", volumes=host(allowed / "way-out"))
    stack.edge("task", "run", out, expect=None)
    stopped = next(task for task in stack.status()["tasks"] if task["taskDefinitionArn"].endswith("/out:1"))
    assert stack.wait_status(stopped["taskId"], "STOPPED")["stopCode"] == "TaskFailedToStart"
    assert "/etc, where" in json.dumps(stack.task(stopped["taskId"]))


def test_every_container_has_the_limits_nobody_asked_for(stack: Stack, podman: PodmanService) -> None:
    allow(stack, "pids_limit = 77")
    stack.run_task(stack.register({"name": "app", "command": ["sh", "-c", "cat /proc/self/status; sleep 1000"]}))
    (name,) = stack.running()
    told = dict(line.split(":\t", 1) for line in podman.run_cli("logs", name).splitlines() if ":\t" in line)
    # KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP, CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
    assert told["CapBnd"].strip() == "00000000800405fb"
    assert told["NoNewPrivs"].strip() == "1"
    assert told["Seccomp"].strip() == "2"
    assert json.loads(podman.run_cli("inspect", name))[0]["HostConfig"]["PidsLimit"] == 77
