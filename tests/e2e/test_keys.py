"""The keys of a fleet change under a real agent: while it listens, while it is away, and after a theft."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from edge.fleet.clock import now
from edge.fleet.devices import list_devices
from edge.fleet.folder import open_fleet
from edge.fleet.signing import FileSigner
from edge.fleet.tasks import next_revision, nothing_new
from edge.model.documents import DESIRED_STATE_TYPE, DesiredState, RevisionOutcome
from edge.model.envelope import open_envelope, seal
from edge.model.topics import Topics
from edge.model.trust import Role
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SLEEPS = {"name": "app", "command": ["sleep", "1000"]}
TOPICS = Topics("default", "pi-1")


def trust_version(stack: Stack) -> int:
    version: int = stack.json("device", "show", "pi-1")["reported"]["trust"][0]["version"]
    return version


def test_a_new_key_and_the_old_one_s_end_leave_every_container_alone(stack: Stack) -> None:
    task = stack.run_task(stack.register(SLEEPS))
    before = stack.running()
    stack.edge("fleet", "key", "rotate", "first", "second")
    stack.wait("the new keys to be in force", lambda: trust_version(stack) == 2)
    stack.wait("the revision they signed", lambda: stack.ack().outcome is RevisionOutcome.APPLIED)
    second = stack.run_task(stack.register(SLEEPS, family="other"))
    assert stack.task(second)["lastStatus"] == stack.task(task)["lastStatus"] == "RUNNING"
    assert before.items() <= stack.running().items()


def test_a_device_that_was_away_for_several_changes_follows_them_all(stack: Stack) -> None:
    stack.run_task(stack.register(SLEEPS))
    before = stack.running()
    stack.kill_agent()
    for name, successor in (("first", "second"), ("second", "third"), ("third", "fourth")):
        stack.edge("fleet", "key", "rotate", name, successor)
    stack.start_agent()
    stack.wait("the newest keys to be in force", lambda: trust_version(stack) == 4)
    stack.run_task(stack.register(SLEEPS, family="other"))
    assert before.items() <= stack.running().items()
    stack.kill_agent()
    stack.start_agent()
    stack.wait_connected()
    assert trust_version(stack) == 4


def test_what_a_thief_signs_counts_until_the_key_is_retired_and_locks_nobody_out(stack: Stack) -> None:
    stack.edge("fleet", "key", "add", "second")
    stolen = stack.folder / "stolen.key"
    shutil.copy2(stack.fleet / "signing.key", stolen)
    stack.run_task(stack.register(SLEEPS))
    with stack.link() as (fleet, link):
        sealed = fleet.database.row("SELECT desired FROM devices")
        assert sealed is not None
        state = DesiredState.model_validate_json(open_envelope(sealed["desired"]).payload)
        highest = state.model_copy(update={"revision": 2**53 - 1, "tasks": []})
        payload = json.dumps(highest.to_wire()).encode()
        link.publish(TOPICS.desired, seal(payload, DESIRED_STATE_TYPE, [FileSigner.load(stolen)]), retain=True)
    stack.wait("the thief's revision in force", lambda: not stack.running())
    stack.kill_agent()
    stack.start_agent()
    stack.wait_connected()
    stack.edge("fleet", "key", "retire", "first")
    stack.wait("the key to be retired", lambda: trust_version(stack) == 3)
    task = stack.run_task(stack.register(SLEEPS))
    assert stack.task(task)["lastStatus"] == "RUNNING"
    with stack.link() as (_, link):
        again = json.dumps(highest.model_copy(update={"revision": 2**53 - 2}).to_wire()).encode()
        link.publish(TOPICS.desired, seal(again, DESIRED_STATE_TYPE, [FileSigner.load(stolen)]), retain=True)
    stack.wait("the refusal", lambda: stack.ack().outcome is RevisionOutcome.REJECTED)
    assert "unknown key" in stack.ack().errors[0].message
    assert stack.task(task)["lastStatus"] == "RUNNING"


def test_a_thief_with_one_key_of_two_required_can_do_nothing(stack: Stack) -> None:
    for name in ("second", "third"):
        stack.edge("fleet", "key", "add", name)
    for role in ("desired-state", "root"):
        stack.edge("fleet", "key", "threshold", role, "2")
    task = stack.run_task(stack.register(SLEEPS))
    one = FileSigner.load(stack.fleet / "signing.key")
    with stack.link() as (fleet, link):
        sealed = fleet.database.row("SELECT desired FROM devices")
        assert sealed is not None
        state = DesiredState.model_validate_json(open_envelope(sealed["desired"]).payload)
        alone = json.dumps(state.model_copy(update={"revision": state.revision + 5, "tasks": []}).to_wire()).encode()
        link.publish(TOPICS.desired, seal(alone, DESIRED_STATE_TYPE, [one, one]), retain=True)
    stack.wait("the refusal", lambda: stack.ack().outcome is RevisionOutcome.REJECTED)
    assert "below threshold: 1 of 2" in stack.ack().errors[0].message
    assert stack.task(task)["lastStatus"] == "RUNNING"


def test_a_revision_that_the_broker_holds_back_is_noticed(stack: Stack) -> None:
    stack.edge("fleet", "key", "add", "ticker", "--role", "head")
    stack.run_task(stack.register(SLEEPS))
    with open_fleet(stack.fleet) as fleet:
        (device,) = list_devices(fleet.database)
        # Composed and never published: what a broker that withholds it looks like to the device.
        revision = next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), device, now(), nothing_new)
    command = (sys.executable, "-m", "edge", "controller", "run", "--fleet", str(stack.fleet))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as controller:
        try:
            stack.wait("an answer", lambda: "has not come" in asked_again(stack))
        finally:
            controller.terminate()
    assert f"revision {revision.number} exists and has not come" in asked_again(stack, restart=False)
    assert len(stack.running()) == 1
    stack.edge("fleet", "publish")
    stack.wait("the problem to end", lambda: "has not come" not in asked_again(stack, restart=False))


def asked_again(stack: Stack, *, restart: bool = True) -> str:
    """A new connection, a new question."""
    if restart:
        stack.kill_agent()
        stack.start_agent()
        stack.wait_connected()
        time.sleep(0.5)
    return json.dumps(stack.json("device", "show", "pi-1")["reported"]["trust"])
