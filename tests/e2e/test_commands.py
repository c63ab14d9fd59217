"""Commands over MQTT, against everything real."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EdgeError, RefusedError
from edge.fleet.commands import SealedCommand, await_result, compose_command, send
from edge.fleet.devices import find_device
from edge.fleet.folder import Fleet
from edge.fleet.link import FleetLink
from edge.model.documents import COMMAND_TYPE, CommandResult, CommandStatus, Operation
from edge.model.envelope import seal
from edge.model.trust import Role
from tests.model.signers import MemorySigner
from tests.support.oci_layout import busybox_image
from tests.support.podman import PodmanService
from tests.support.registry import Registry
from tests.support.stack import DEVICE, Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto, pytest.mark.registry]


class Operator:
    def __init__(self, fleet: Fleet, link: FleetLink) -> None:
        self.fleet = fleet
        self.link = link
        self.device = find_device(fleet.database, "default", DEVICE)

    def compose(self, op: Operation, parameters: dict[str, Any], moment: datetime | None = None) -> SealedCommand:
        moment = moment or datetime.now(UTC)
        return compose_command(
            self.device, op, parameters, self.fleet.signers(Role.COMMAND), moment, lifetime_seconds=20
        )

    def ask(self, sealed: SealedCommand) -> CommandResult:
        send(self.link, sealed)
        return await_result(self.link, sealed)


@contextmanager
def operator(stack: Stack) -> Iterator[Operator]:
    with stack.link() as (fleet, link):
        yield Operator(fleet, link)


def test_a_task_is_stopped_by_command_and_stays_so_though_the_desired_state_says_running(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    with operator(stack) as one:
        result = one.ask(one.compose(Operation.STOP_TASK, {"taskId": task_id, "reason": "on fire"}))
    assert result.result["task"]["desiredStatus"] == "STOPPED"
    task = stack.wait_status(task_id, "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "on fire")
    stack.kill_agent()
    stack.start_agent()
    stack.wait_connected()
    assert stack.task(task_id)["lastStatus"] == "STOPPED"
    assert stack.running() == {}


def test_a_command_that_comes_twice_is_done_once_and_answered_twice(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    with operator(stack) as one:
        sealed = one.compose(Operation.DESCRIBE, {"taskId": task_id})
        first = one.ask(sealed)
        stack.edge("task", "stop", task_id)
        assert one.ask(sealed).result == first.result, "the stored answer, not a new one"
        stack.kill_agent()
        stack.start_agent()
        stack.wait_connected()
        assert one.ask(sealed).result == first.result, "after a restart as well"
        assert first.result["tasks"][0]["lastStatus"] == "RUNNING"


def test_an_image_is_pulled_ahead_of_its_task(stack: Stack, podman: PodmanService, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        podman.allow_insecure(registry.address)
        reference = busybox_image(registry, "ahead", ["sleep", "1000"])
        told = stack.json("device", "pull-image", reference)
        assert told["image"]["digest"].startswith("sha256:")
    # The registry is gone: what is there is enough.
    task_id = stack.run_task(stack.register({"name": "app", "image": reference}))
    assert stack.task(task_id)["containers"][0]["imageDigest"] == told["image"]["digest"]


def test_an_image_that_does_not_exist_is_said_so(stack: Stack, podman: PodmanService, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        podman.allow_insecure(registry.address)
        reference = f"{registry.address}/nothing:1"
        with operator(stack) as one, pytest.raises(EdgeError, match="manifest unknown"):
            one.ask(one.compose(Operation.PULL_IMAGE, {"image": reference}))
        stack.edge("task", "run", stack.register({"name": "app", "image": reference}), expect=1)
    task = stack.status()["tasks"][0]
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPullContainerError: ")
    assert "manifest unknown" in task["stoppedReason"]


def test_a_registry_that_comes_back_is_found_again(stack: Stack, podman: PodmanService, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    podman.allow_insecure(registry.address)
    registry.start()
    reference = busybox_image(registry, "later", ["sleep", "1000"])
    registry.kill()
    definition = stack.register({"name": "app", "image": reference})
    task_id = stack.edge("task", "run", definition, "--no-wait").strip()
    stack.wait("the reason", lambda: "CannotPullContainerError" in stack.task(task_id).get("pendingReason", ""))
    registry.start()
    try:
        assert stack.wait_status(task_id, "RUNNING")["pullStartedAt"]
    finally:
        registry.kill()


def test_the_last_lines_are_read_and_a_log_is_followed(stack: Stack) -> None:
    command = ["sh", "-c", "for n in $(seq 1 500); do echo line $n; done; sleep 1; echo late; sleep 1000"]
    task_id = stack.run_task(stack.register({"name": "app", "command": command}))
    stack.wait("500 lines", lambda: "line 500" in stack.edge("task", "logs", task_id, "--tail", "2"))
    follow = subprocess.Popen(
        [sys.executable, "-m", "edge", "task", "logs", "-f", "--tail", "500", task_id, "--output", "json"],
        stdout=subprocess.PIPE,
        env={**os.environ, "EDGE_FLEET": str(stack.fleet)},
        text=True,
    )
    assert follow.stdout is not None
    lines = []
    for line in follow.stdout:
        lines.append(json.loads(line))
        if lines[-1].get("text") == "late":
            break
    stack.edge("task", "stop", task_id)
    rest = follow.communicate(timeout=20)[0]
    assert follow.returncode == 0, rest
    assert [line["text"] for line in lines] == [*(f"line {n}" for n in range(1, 501)), "late"]


def refused(one: Operator, sealed: SealedCommand, envelope: bytes, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        one.ask(dataclasses.replace(sealed, envelope=envelope))


def test_a_command_that_nobody_may_give_is_refused_with_its_reason(stack: Stack) -> None:
    with operator(stack) as one:
        good = one.compose(Operation.DESCRIBE, {})
        other = one.compose(Operation.DESCRIBE, {})
        payload = json.dumps(good.command.to_wire()).encode()
        refused(one, good, seal(payload, COMMAND_TYPE, [MemorySigner()]), "unknown key")
        refused(one, good, good.envelope[:-20], "malformed")
        refused(one, good, other.envelope, "its topic says")
        wrong = {**good.command.to_wire(), "device": "pi-2"}
        refused(
            one,
            good,
            seal(json.dumps(wrong).encode(), COMMAND_TYPE, one.fleet.signers(Role.COMMAND)),
            "is for default/pi-2",
        )
        odd = {**good.command.to_wire(), "parameters": {"taskId": "x"}}
        refused(one, good, seal(json.dumps(odd).encode(), COMMAND_TYPE, one.fleet.signers(Role.COMMAND)), "parameters")
        unknown = {**good.command.to_wire(), "op": "formatDisk"}
        sealed = dataclasses.replace(
            good,
            command=good.command.model_copy(update={"op": "formatDisk"}),
            envelope=seal(json.dumps(unknown).encode(), COMMAND_TYPE, one.fleet.signers(Role.COMMAND)),
        )
        with pytest.raises(RefusedError, match="does not know the command formatDisk"):
            one.ask(sealed)
        assert one.ask(one.compose(Operation.DESCRIBE, {})).status is CommandStatus.SUCCEEDED


def test_a_task_that_is_not_there_is_told_as_a_failure(stack: Stack) -> None:
    with operator(stack) as one, pytest.raises(EdgeError, match="has no task"):
        one.ask(one.compose(Operation.STOP_TASK, {"taskId": "0" * 32}))


def test_a_command_given_while_the_device_was_away_is_not_done_when_it_is_too_late(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    stack.stop_agent()
    with operator(stack) as one:
        old = datetime.now(UTC) - timedelta(seconds=60)
        late = one.compose(Operation.STOP_TASK, {"taskId": task_id}, old)
        # The broker drops it after one second, as it drops any message whose expiry is over.
        one.link.publish(late.topics.command("stopTask", late.command.id), late.envelope, expiry_seconds=1)
        subprocess.run(["sleep", "2.5"], check=True)
        stack.start_agent()
        stack.wait_connected()
        assert (
            one.ask(one.compose(Operation.DESCRIBE, {"taskId": task_id})).result["tasks"][0]["lastStatus"] == "RUNNING"
        )
    assert stack.task(task_id)["lastStatus"] == "RUNNING"
