"""A device's certificate: made from a key that stays on the device, and taken back from a device that was stolen."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from edge.fleet.broker_folder import refresh_access_list
from edge.fleet.clock import now
from edge.fleet.devices import list_devices
from edge.fleet.folder import open_fleet
from edge.fleet.identities import add_device
from tests.support.mosquitto import free_port
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SLEEPS = {"name": "app", "command": ["sleep", "1000"]}


def test_a_stolen_device_is_out_at_the_reload_and_one_with_a_new_key_takes_its_place(stack: Stack) -> None:
    stack.run_task(stack.register(SLEEPS))
    stack.edge("device", "revoke", "pi-1")
    stack.broker.signal(signal.SIGHUP)
    time.sleep(0.5)
    # The connection it has is deaf and dumb from here on.
    stack.edge("task", "run", stack.register(SLEEPS, family="secret"), "--no-wait")
    time.sleep(1)
    assert len(stack.status()["tasks"]) == 1
    stack.kill_agent()
    stack.start_agent()
    stack.wait("the refusal", lambda: "REVOKED" in stack.status()["connection"]["reason"].upper())
    # What ran keeps running: the broker's word is not needed for that.
    assert len(stack.running()) == 1

    stack.kill_agent()
    (stack.device / "device.key").rename(stack.folder / "stolen.key")
    stack.edge("agent", "request", str(stack.device), "--device", "pi-1")
    out = stack.folder / "out"
    stack.edge("device", "add", "pi-1", "--force", "--csr", str(stack.device / "device.csr"), "--out", str(out))
    assert not (out / "device.key").exists()
    shutil.copy2(out / "device.crt", stack.device / "device.crt")
    stack.broker.signal(signal.SIGHUP)
    stack.start_agent()
    stack.wait_connected()
    stack.wait("both tasks", lambda: len(stack.running()) == 2)
    stolen = (stack.folder / "stolen.key").read_bytes()
    assert stolen not in b"".join(path.read_bytes() for path in stack.fleet.rglob("*") if path.is_file())


def test_a_certificate_past_half_of_its_life_is_replaced_while_everything_runs(stack: Stack) -> None:
    stack.run_task(stack.register(SLEEPS))
    before = stack.running()
    stack.kill_agent()
    with open_fleet(stack.fleet) as fleet:
        old = add_device(fleet, "pi-1", stack.folder / "old", now() - timedelta(days=3 * 365), force=True)
    for name in ("device.crt", "device.key"):
        shutil.copy2(stack.folder / "old" / name, stack.device / name)
    with controller(stack):
        stack.start_agent()
        stack.wait("the new certificate", lambda: "there is a new certificate" in stack.log())
    with open_fleet(stack.fleet) as fleet:
        (new,) = list_devices(fleet.database)
    assert new.certificate_expires_at > old.certificate_expires_at
    stack.kill_agent()
    stack.edge("device", "revoke", "pi-1")
    with open_fleet(stack.fleet) as fleet, fleet.database.transaction():
        # Of all certificates the new one alone counts: what connects now is that one.
        fleet.database.change("UPDATE certificates SET revoked_at = '' WHERE serial = ?", (new.certificate_serial,))
        fleet.database.change("UPDATE devices SET revoked_at = ''")
        refresh_access_list(fleet, now())
    stack.broker.signal(signal.SIGHUP)
    stack.start_agent()
    stack.wait_connected()
    assert stack.running() == before


def let_the_certificate_end(stack: Stack) -> None:
    """The device was off for six years."""
    stack.kill_agent()
    with open_fleet(stack.fleet) as fleet:
        add_device(fleet, "pi-1", stack.folder / "old", now() - timedelta(days=6 * 365), force=True)
    for name in ("device.crt", "device.key"):
        shutil.copy2(stack.folder / "old" / name, stack.device / name)
    stack.start_agent()
    stack.wait("the refusal", lambda: "EXPIRED" in stack.status()["connection"]["reason"].upper())
    stack.kill_agent()


def test_a_device_that_was_off_past_its_certificate_s_end_comes_back(stack: Stack) -> None:
    stack.run_task(stack.register(SLEEPS))
    before = stack.running()
    config = (stack.device / "agent.toml").read_bytes()

    # By the operator's hand, as at the first time.
    let_the_certificate_end(stack)
    stack.edge("agent", "request", str(stack.device), "--device", "pi-1")
    out = stack.folder / "out"
    stack.edge("device", "add", "pi-1", "--force", "--csr", str(stack.device / "device.csr"), "--out", str(out))
    shutil.copy2(out / "device.crt", stack.device / "device.crt")
    stack.start_agent()
    stack.wait_connected()
    assert stack.running() == before

    # By itself, by an activation that names it.
    let_the_certificate_end(stack)
    port = free_port()
    stack.broker.kill()
    words = ("--address", "127.0.0.1", "--user", "root", "--enrollment-port", str(port))
    stack.edge("fleet", "broker-config", str(stack.folder / "broker"), *words)
    made = stack.json("fleet", "activation", "create", "--device", "pi-1", "--force")
    stack.broker.start()
    asking = ["--activation-id", made["activationId"], "--activation-code", made["activationCode"]]
    asking += ["--broker", f"127.0.0.1:{port}", "--ca", str(stack.device / "ca.crt"), str(stack.device)]
    key = (stack.device / "device.key").read_bytes()
    with controller(stack, "--reload", f"kill -HUP {stack.broker.pid}"):
        assert stack.json("agent", "enroll", *asking)["status"] == "enrolled"
    assert (stack.device / "device.key").read_bytes() != key
    # What the owner allows is the owner's: the configuration is left as it was.
    assert (stack.device / "agent.toml").read_bytes() == config
    assert stack.json("agent", "enroll", *asking)["status"] == "already enrolled"
    stack.start_agent()
    stack.wait_connected()
    assert stack.running() == before
    stack.run_task(stack.register(SLEEPS, family="next"))


@contextmanager
def controller(stack: Stack, *options: str) -> Iterator[None]:
    command = (sys.executable, "-m", "edge", "controller", "run", "--fleet", str(stack.fleet), *options)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
