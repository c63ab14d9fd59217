"""What systemd is told, and that nobody who only seems alive says so."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.images.serving import prove_answers
from edge.sd_notify import ServiceManager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)  # noqa: FBT003 - its own signature
        yield listening


def heard(listening: socket.socket) -> list[str]:
    found = []
    try:
        while True:
            found.append(listening.recv(4096).decode())
    except BlockingIOError:
        return found


def environment(listening: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(listening.getsockname()), "PATH": "/bin", **more}


def test_systemd_is_told_in_its_words_and_no_child_inherits_its_socket(manager: socket.socket) -> None:
    given = environment(manager, WATCHDOG_USEC="180000000", WATCHDOG_PID=str(os.getpid()))
    service = ServiceManager.taken_from(given)
    service.ready()
    service.alive()
    service.stopping()
    assert heard(manager) == ["READY=1", "WATCHDOG=1", "STOPPING=1"]
    assert service.alive_seconds == 60.0
    assert given == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "more",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "1"}],
)
def test_where_nobody_watches_nothing_is_said_and_nobody_wakes(manager: socket.socket, more: dict[str, str]) -> None:
    service = ServiceManager(environment(manager, **more), os.getpid())
    service.alive()
    assert (heard(manager), service.alive_seconds) == ([], None)


def test_an_abstract_socket_is_one_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        name = f"edge-test-{os.getpid()}"
        listening.bind(f"\0{name}")
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}, 1).ready()
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize("given", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_nobody_to_tell_is_no_reason_to_end(given: dict[str, str]) -> None:
    service = ServiceManager(given, 1)
    service.ready()
    service.stopping()


def test_a_mount_that_nobody_mounted_is_no_end(tmp_path: Path) -> None:
    prove_answers(tmp_path)


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_image_service_is_ready_and_says_that_its_mount_answers(manager: socket.socket, tmp_path: Path) -> None:
    from tests.support.images import unmount_images  # noqa: PLC0415 - needs a mount, as this test alone does

    state = tmp_path / "images"
    given = {**os.environ, "NOTIFY_SOCKET": str(manager.getsockname()), "WATCHDOG_USEC": "600000"}
    given.pop("WATCHDOG_PID", None)
    command = (sys.executable, "-m", "edge", "images", "serve", "--state-dir", str(state))
    process = subprocess.Popen((*command, "--socket", str(tmp_path / "i.sock")), env=given)
    said: list[str] = []

    def has(word: str, times: int) -> bool:
        said.extend(heard(manager))
        return said.count(word) >= times

    try:
        _until(lambda: has("WATCHDOG=1", 3))
        assert said.index("READY=1") < said.index("WATCHDOG=1")
        assert any("FDNAME=edge-images-fuse" in one for one in said), "its mount is kept by the service manager"
        process.terminate()
        assert process.wait(30) == 0
        assert has("STOPPING=1", 1)
    finally:
        process.kill()
        process.wait(10)
        unmount_images(state)
