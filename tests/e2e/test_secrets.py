"""Fleet secrets from the operator's keyboard into a container's environment, and nowhere else: everything real."""

import base64
import json
import os
import secrets
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.fleet.folder import open_fleet
from edge.mqtt.broker import Connected, Subscribed
from edge.mqtt.paho_broker import PahoBroker
from tests.support.podman import PodmanService
from tests.support.recorder import Recorder
from tests.support.stack import DEVICE, Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


@pytest.fixture
def canary() -> str:
    """A value that is nowhere else on this machine."""
    return f"canary-{secrets.token_hex(12)}"


@pytest.fixture
def keyed(stack: Stack) -> Stack:
    """A stack whose device has told its key."""
    stack.wait("the device to tell its key", lambda: key_of(stack))
    return stack


@contextmanager
def recorded(stack: Stack) -> Iterator[Recorder]:
    """Everything that goes over the broker."""
    with open_fleet(stack.fleet) as fleet:
        settings = fleet.folder.broker_settings(fleet.settings.operator, "operator-ear")
    broker, heard = PahoBroker(settings), Recorder()
    broker.start(heard)
    heard.wait(Connected)
    broker.subscribe((("edge/v1/#", 1),))
    heard.wait(Subscribed)
    try:
        yield heard
    finally:
        broker.stop()


def key_of(stack: Stack) -> str:
    shown = stack.json("device", "show", DEVICE)
    return str(shown["birth"].get("secretsKey", {}).get("publicKey", ""))


def set_secret(stack: Stack, name: str, value: str) -> None:
    path = stack.folder / "value"
    path.write_text(value + "\n")
    stack.edge("secret", "set", name, "--from-file", str(path))
    path.unlink()


def app(**fields: object) -> dict[str, object]:
    wanted = [{"name": "PW", "valueFrom": "db-password"}]
    return {"name": "app", "command": ["sleep", "1000"], "secrets": wanted, **fields}


def environment(stack: Stack, task_id: str) -> dict[str, str]:
    """What the container's first process was given."""
    runtime_id = stack.task(task_id)["containers"][0]["runtimeId"]
    (pid,) = [pid for one, pid in stack.running().values() if one == runtime_id]
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def files_with(folder: Path, value: str) -> list[str]:
    """The files below a folder that hold a value as it is, in hexadecimal, or in base64 however it is aligned."""
    forms = {value.encode(), value.encode().hex().encode()}
    forms |= {base64.b64encode(bytes(pad) + value.encode())[pad + 2 : -4] for pad in range(3)}
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [str(path)] if any(form in data for form in forms) else []
    return found


def test_a_container_has_its_secret_and_nothing_else_of_the_device_or_the_broker_has(
    keyed: Stack, podman: PodmanService, canary: str
) -> None:
    with recorded(keyed) as messages:
        set_secret(keyed, "db-password", canary)
        task_id = keyed.run_task(keyed.register(app()))
        assert environment(keyed, task_id)["PW"] == canary
        keyed.edge("task", "describe", task_id)
        keyed.stop_agent()
    # The device: state, outbox, the agent's log, Podman's own files, what Podman tells, who runs with which arguments.
    assert files_with(keyed.device, canary) == []
    assert canary not in keyed.log()
    assert files_with(podman.folder, canary) == []
    assert canary not in podman.run_cli("inspect", *keyed.running())
    assert canary not in podman.run_cli("secret", "inspect", *podman.run_cli("secret", "ls", "-q").split())
    assert canary not in subprocess.run(["ps", "-ww", "axo", "args"], capture_output=True, text=True, check=True).stdout
    assert files_with(Path("/dev/shm"), canary) + files_with(Path("/run/runc"), canary) == []
    # The broker: every message that went over it, and its own files; the operator's: the fleet's folder.
    told = messages.messages()
    assert {"desired", "reported", "ack", "birth"} <= {message.topic.rpartition("/")[2] for message in told}
    assert not [message.topic for message in told if canary.encode() in message.payload]
    assert files_with(keyed.folder, canary) == []
    # It would have been found.
    (keyed.device / "state" / "found").write_text(base64.b64encode(f"x{canary}".encode()).decode())
    assert len(files_with(keyed.device, canary)) == 1


def test_a_new_value_comes_with_the_next_start_without_a_new_task_definition(keyed: Stack) -> None:
    set_secret(keyed, "db-password", "first")
    definition = keyed.register(app(restartPolicy={"enabled": True, "restartAttemptPeriod": 60}))
    task_id = keyed.run_task(definition)
    set_secret(keyed, "db-password", "second")
    revision = keyed.json("device", "show", DEVICE)["desiredRevision"]
    keyed.wait("the new revision", lambda: keyed.status()["revision"] == revision)
    assert environment(keyed, task_id)["PW"] == "first"
    ((_, pid),) = keyed.running().values()
    os.kill(pid, 9)
    keyed.wait("another process", lambda: keyed.running() and next(iter(keyed.running().values()))[1] != pid)
    assert environment(keyed, task_id)["PW"] == "second"
    assert [(one["version"], one["devices"]) for one in keyed.json("secret", "ls")["secrets"]] == [(2, {DEVICE: 2})]


def test_a_task_waits_for_a_secret_that_is_gone_and_starts_when_it_comes(keyed: Stack) -> None:
    set_secret(keyed, "db-password", "first")
    definition = keyed.register(app())
    keyed.edge("secret", "rm", "db-password")
    # Nothing is begun that could not start.
    keyed.edge("task", "run", definition, expect=3)
    set_secret(keyed, "db-password", "second")
    task_id = keyed.run_task(definition)
    keyed.edge("secret", "rm", "db-password")
    keyed.wait("it to be gone", lambda: "sealed" not in desired(keyed))
    podman_restart(keyed)
    reason = keyed.wait("the reason", lambda: keyed.task(task_id).get("pendingReason"))
    assert str(reason).startswith(
        "ResourceInitializationError: unable to pull secrets: this device was not given db-password"
    )
    set_secret(keyed, "db-password", "third")
    keyed.wait("it to run", keyed.running)
    assert environment(keyed, task_id)["PW"] == "third"


def desired(stack: Stack) -> str:
    connection = sqlite3.connect(f"file:{stack.state_dir / 'state.db'}?mode=ro", uri=True)
    try:
        (row,) = connection.execute("SELECT value FROM meta WHERE key = 'desired'").fetchall()
    finally:
        connection.close()
    return bytes(row[0]).decode()


def podman_restart(stack: Stack) -> None:
    """As after a reboot: nothing runs, and the agent starts what should."""
    stack.kill_agent()
    stack.podman.run_cli("stop", "--all", "--time", "0")
    stack.start_agent(program=("-m", "tests.support.played_agent"), environment={"EDGE_TEST_BOOT_ID": "another-boot"})
    stack.wait_connected()


def test_a_container_that_was_started_by_an_agent_that_died_at_once_is_covered_by_the_next(
    keyed: Stack, podman: PodmanService, canary: str
) -> None:
    set_secret(keyed, "db-password", canary)
    keyed.run_task(keyed.register(app()))
    (name,) = keyed.running()
    config = Path(json.loads(podman.run_cli("inspect", name))[0]["OCIConfigPath"])
    keyed.kill_agent()
    # As it is between Podman's start and the agent's next line.
    document = json.loads(config.read_text())
    document["process"]["env"].append(f"PW={canary}")
    config.write_text(json.dumps(document))
    assert canary in podman.run_cli("inspect", name)
    keyed.start_agent()
    keyed.wait("it to be covered", lambda: files_with(podman.folder, canary) == [])
    assert canary not in podman.run_cli("inspect", name)


def test_the_agent_leaves_no_core_dump_and_nobody_else_reads_its_memory(keyed: Stack) -> None:
    pid = keyed.status()["pid"]
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size")] == ["0"]
    # prctl(2): the files in /proc of a process that is not dumpable are root's and closed to its own user.
    denied = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", "cat", f"/proc/{pid}/environ"],
        capture_output=True,
        check=False,
    )
    assert denied.returncode
