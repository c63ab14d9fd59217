"""A technician at the device, without any network: everything real but the link, which is not there."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.podman import IMAGE
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def local(stack: Stack, *arguments: str, expect: int = 0) -> str:
    return stack.edge("local", *arguments, "--config", str(stack.device / "agent.toml"), expect=expect)


def test_run_look_and_stop_without_a_broker_and_told_to_the_fleet_afterwards(stack: Stack) -> None:
    definition = stack.register({"name": "app", "command": ["sh", "-c", "echo assigned; sleep 1000"]})
    assigned = stack.run_task(definition)
    before = stack.running()
    stack.broker.kill()

    path = stack.folder / "probe.json"
    containers = [
        {
            "name": "app",
            "image": IMAGE,
            "memory": 32,
            "stopTimeout": 2,
            "command": ["sh", "-c", "echo here; sleep 1000"],
        }
    ]
    path.write_text(json.dumps({"family": "probe", "containerDefinitions": containers}))
    (probe,) = json.loads(local(stack, "run", str(path), "--output", "json"))["tasks"]
    assert (probe["lastStatus"], probe["origin"], probe["startedBy"]) == ("RUNNING", "local", "local/root")
    local(stack, "run", "app")
    assert len(stack.running()) == 3
    assert assigned[:12] in local(stack, "ls")
    assert stack.wait("its line", lambda: local(stack, "logs", probe["taskId"])) == "here\n"
    local(stack, "stop", probe["taskId"][:8], "--reason", "smoke")
    stack.wait_status(probe["taskId"], "STOPPED")
    assert set(before) <= set(stack.running())

    stack.broker.start()

    def told() -> bool:
        return any(task["taskId"] == probe["taskId"] for task in stack.json("task", "ls", "--all")["tasks"])

    stack.wait("the fleet knows", told)
    (task,) = stack.json("task", "describe", probe["taskId"])["tasks"]
    assert task["stoppedReason"] == "Stopped at the device by root: smoke"
    assert stack.running().keys() >= before.keys()


def test_policy_and_rules_hold_for_who_stands_there_too(stack: Stack) -> None:
    path = stack.folder / "bad.json"
    container = {"name": "app", "image": IMAGE, "memory": 32, "privileged": True}
    path.write_text(json.dumps({"family": "bad", "containerDefinitions": [container]}))
    local(stack, "run", str(path), expect=2)
    local(stack, "run", "nothing", expect=3)
    local(stack, "stop", "ffff", expect=3)
    assert stack.running() == {}


def test_whoever_is_not_root_is_refused_by_the_kernels_word_even_if_the_file_lets_him(stack: Stack) -> None:
    path = stack.state_dir / "run" / "agent.sock"
    for folder in (path, *path.parents):
        if stack.folder in folder.parents or folder == stack.folder:
            folder.chmod(0o777)
    script = (
        "import os,socket,sys; s=socket.socket(socket.AF_UNIX); os.chdir(sys.argv[1]); os.setuid(65534);"
        "s.connect('agent.sock'); s.sendall(b'{\"op\":\"ls\"}\\n'); print(s.makefile().readline())"
    )
    found = subprocess.run((sys.executable, "-c", script, str(path.parent)), capture_output=True, text=True, check=True)
    answer = json.loads(found.stdout)
    assert answer["error"]["kind"] == "RefusedError"


@pytest.mark.parametrize(
    "sent", [b"", b"\n", b"[]\n", b'{"op":"format"}\n', b"{" * 300_000 + b"\n", b'{"op":"stop","taskId":"../../x"}\n']
)
def test_nonsense_is_answered_and_hurts_nobody(stack: Stack, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        before = Path.cwd()
        os.chdir(stack.state_dir / "run")
        try:
            client.connect("agent.sock")
        finally:
            os.chdir(before)
        client.settimeout(20)
        try:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            answer = client.makefile("rb").readline()
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert not answer or json.loads(answer)["error"]["kind"] == "InvalidInputError"
    assert "TASK" in local(stack, "ls")
