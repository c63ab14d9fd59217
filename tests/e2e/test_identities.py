"""A device's certificate: made from a key that stays on the device, and taken back from a device that was stolen."""

import shutil
import signal
import time

import pytest

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
