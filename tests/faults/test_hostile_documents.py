"""Whatever comes as a desired state: refused with its reason, and the last good state goes on."""

import base64
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from edge.errors import EdgeError
from edge.fleet.devices import find_device
from edge.model.documents import COMMAND_TYPE, DESIRED_STATE_TYPE, MAXIMUM_DOCUMENT_BYTES, RevisionOutcome
from edge.model.envelope import seal
from edge.model.trust import Role
from tests.model.signers import MemorySigner
from tests.support.stack import DEVICE, Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]


def state(revision: object = 99, **changes: Any) -> bytes:
    document = {
        "schemaVersion": 1,
        "cluster": "default",
        "device": DEVICE,
        "revision": revision,
        "issuedAt": "2026-11-23T12:00:00Z",
        "taskDefinitions": {},
        "tasks": [],
        **changes,
    }
    return json.dumps(document).encode()


def sealed(stack: Stack, payload: bytes, kind: str = DESIRED_STATE_TYPE) -> bytes:
    with stack.link() as (fleet, _):
        return seal(payload, kind, fleet.signers(Role.COMMAND))


def tampered(envelope: bytes) -> bytes:
    document = json.loads(envelope)
    payload = base64.b64decode(document["payload"]).replace(b'"revision": 99', b'"revision": 98')
    document["payload"] = base64.b64encode(payload).decode()
    return json.dumps(document).encode()


CONTAINER = {"name": "a", "image": "i", "memory": 8}
DEFINITION: dict[str, Any] = {"family": "x", "containerDefinitions": [CONTAINER]}
TASK = {"taskId": "0" * 32, "taskDefinition": "x:1"}
SERVICE = {"serviceName": "web", "taskDefinition": "x:1"}
NEVER = {"name": "never", "taskDefinition": "x:1", "scheduleExpression": "cron(0 0 30 2 ? *)"}

HOSTILE: dict[str, tuple[Callable[[Stack], bytes], str]] = {
    "nothing at all": (lambda _: b" ", "malformed"),
    "not JSON": (lambda _: b"{{{{", "malformed"),
    "deeply nested": (lambda _: b"[" * 60_000, "malformed"),
    "JSON without a signature": (lambda _: state(), "malformed"),
    "signed by a stranger": (lambda _: seal(state(), DESIRED_STATE_TYPE, [MemorySigner()]), "unknown key"),
    "changed after it was signed": (lambda stack: tampered(sealed(stack, state())), "bad signature"),
    "a command in disguise": (lambda stack: sealed(stack, state(), COMMAND_TYPE), "wrong type"),
    "for another device": (lambda stack: sealed(stack, state(device="pi-2")), "is for default/pi-2"),
    "for another cluster": (lambda stack: sealed(stack, state(cluster="other")), "is for other/pi-1"),
    "an older revision": (lambda stack: sealed(stack, state(revision=1, issuedAt="x")), "not newer"),
    "a revision that is no number": (lambda stack: sealed(stack, state(revision="9")), "valid integer"),
    "policies it does not know": (lambda stack: sealed(stack, state(policies={"a": 1})), "does not know policies"),
    "a service that is none": (lambda stack: sealed(stack, state(services=[{"a": 1}])), "Field required"),
    "a service without its definition": (lambda stack: sealed(stack, state(services=[SERVICE])), "is not in taskDef"),
    "a schedule that never comes": (lambda stack: sealed(stack, state(schedules=[NEVER])), "a day that never comes"),
    "a task without its definition": (lambda stack: sealed(stack, state(tasks=[TASK])), "not in taskDefinitions"),
    "a task twice": (
        lambda stack: sealed(stack, state(tasks=[TASK, TASK], taskDefinitions={"x:1": DEFINITION})),
        "is there twice",
    ),
    "too many tasks": (
        lambda stack: sealed(stack, state(tasks=[{**TASK, "taskId": f"{n:032x}"} for n in range(257)])),
        "256",
    ),
    "a container field it does not know": (
        lambda stack: sealed(
            stack,
            state(taskDefinitions={"x:1": {**DEFINITION, "containerDefinitions": [{**CONTAINER, "pid": 1}]}}),
        ),
        "no such field",
    ),
    "privileged where the owner does not allow it": (
        lambda stack: sealed(
            stack,
            state(
                taskDefinitions={
                    "x:1": {
                        "family": "x",
                        "containerDefinitions": [{"name": "a", "image": "i", "memory": 8, "privileged": True}],
                    }
                }
            ),
        ),
        "does not allow privileged",
    ),
}


def test_every_hostile_document_is_refused_with_its_reason_and_nothing_changes(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before, revision = stack.running(), stack.status()["revision"]
    for name, (make, reason) in HOSTILE.items():
        stack.send_desired(make(stack))

        def refused(reason: str = reason) -> bool:
            ack = stack.ack()
            return any(reason in problem.message for problem in ack.errors)

        stack.wait(f"{name} to be refused because of {reason!r}, not {stack.ack()}", refused, seconds=5)
        assert stack.ack().outcome in (RevisionOutcome.REJECTED, RevisionOutcome.SUPERSEDED)
        assert stack.status()["revision"] == revision
        assert stack.running() == before, name
    assert stack.task(task_id)["lastStatus"] == "RUNNING"


def test_a_document_that_is_too_large_is_not_even_read(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before = stack.running()
    revision = stack.status()["revision"]
    # Whether the broker refuses it or, not being allowed to send it on, drops it: the device never holds it.
    with contextlib.suppress(EdgeError):
        stack.send_desired(b"x" * (MAXIMUM_DOCUMENT_BYTES + 1))
    second = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    assert (stack.status()["revision"], stack.task(second)["lastStatus"]) == (revision + 1, "RUNNING")
    before |= {name: one for name, one in stack.running().items() if second[:24] in name}
    assert stack.running() == before
    assert stack.task(task_id)["lastStatus"] == "RUNNING"


def test_a_replayed_document_changes_nothing_even_after_a_restart(stack: Stack) -> None:
    definition = stack.register({"name": "app", "command": ["sleep", "1000"]})
    first = stack.run_task(definition)
    with stack.link() as (fleet, _):
        # What the broker holds now, as an attacker would keep it.
        old = find_device(fleet.database, "default", DEVICE).desired
    assert old is not None
    stack.edge("task", "stop", first)
    revision = stack.status()["revision"]
    for restart in (False, True):
        if restart:
            stack.kill_agent()
            stack.start_agent()
            stack.wait_connected()
        stack.send_desired(old)
        stack.wait("the replay to be refused", lambda: stack.ack().outcome is RevisionOutcome.SUPERSEDED)
        assert stack.status()["revision"] == revision
        assert stack.running() == {}


def test_an_empty_retained_document_does_not_mean_stop_everything(stack: Stack) -> None:
    task_id = stack.run_task(stack.register({"name": "app", "command": ["sleep", "1000"]}))
    before = stack.running()
    stack.send_desired(b"")
    stack.wait("the refusal", lambda: any("empty" in p.message for p in stack.ack().errors))
    assert (stack.running(), stack.task(task_id)["lastStatus"]) == (before, "RUNNING")
