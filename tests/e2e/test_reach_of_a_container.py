"""What a container can reach of the agent: nothing but the socket that was handed to it."""

import os
import socket
import stat
from pathlib import Path

import pytest

from edge.model.container_spec import TELEMETRY_SOCKET_NAME
from tests.support.podman import PodmanService
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SLEEPS = {"name": "app", "command": ["sleep", "1000"]}
PRUNED = ("-path", "/proc", "-prune", "-o", "-type", "s", "-print")
LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""


def listening(pid: int) -> list[str]:
    """The TCP ports a process listens on, by the inodes of its descriptors."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
    ]
    return [line[1] for line in lines if line[3] == LISTEN and line[9] in inodes]


def test_the_agent_listens_on_no_port_and_its_sockets_are_its_own(stack: Stack) -> None:
    stack.run_task(stack.register(SLEEPS))
    pid = stack.status()["pid"]
    assert listening(pid) == []
    agent_socket = stack.state_dir / "run" / "agent.sock"
    assert stat.S_ISSOCK(agent_socket.stat().st_mode)
    assert not agent_socket.stat().st_mode & 0o007
    # Such a port would be found.
    before = listening(os.getpid())
    with socket.create_server(("127.0.0.1", 0)):
        assert len(listening(os.getpid())) == len(before) + 1


def test_a_container_sees_no_socket_and_no_file_of_the_agent_but_its_own(stack: Stack, podman: PodmanService) -> None:
    stack.run_task(stack.register(SLEEPS))
    (name,) = stack.running()
    found = podman.run_cli("exec", name, "busybox", "find", "/", *PRUNED).split()
    mounts = podman.run_cli("exec", name, "busybox", "cat", "/proc/self/mounts")
    assert str(stack.state_dir) not in mounts.replace(str(stack.state_dir / "readings"), "")
    # The one that was handed to it.
    assert [Path(path).name for path in found] == [TELEMETRY_SOCKET_NAME]
    for path in (stack.device / "device.key", stack.state_dir / "identity.pem", stack.state_dir / "run" / "agent.sock"):
        assert path.exists()
        told = podman.run_cli("exec", name, "busybox", "ls", str(path), check=False)
        assert str(path) not in told.split()
