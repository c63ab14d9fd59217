"""`edge up` on a real Podman, with a small program in the agent's place."""

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edge.cli import up
from edge.errors import InvalidInputError, NotFoundError, RefusedError
from edge.podman_host import choose_podman_flags, choose_ulimits, read_facts
from tests.support.images import unmount_images

_PATIENCE_SECONDS = 30.0
_ACCEPTS_CONNECTIONS = "00010000"  # __SO_ACCEPTCON in linux/net.h, as /proc/net/unix prints it
_RUNNER = """
import argparse, sys
from edge.cli import up
from edge.errors import EdgeError
parser = argparse.ArgumentParser()
up.add_arguments(parser)
agent = (sys.executable, "-c", "import signal; print('agent runs', flush=True); signal.pause()")
try:
    sys.exit(up.run_with(parser.parse_args(), agent, lambda line: print(line, flush=True)))
except EdgeError as error:
    print(error, error.hint)
    sys.exit(error.exit_code)
"""


def until(condition: Callable[[], bool], tell: Callable[[], str] = str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {_PATIENCE_SECONDS} s in vain; {tell()}")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def processes_naming(folder: Path) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [text] if str(folder) in text else []
    return found


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("podman", timeout=_PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE_SECONDS)
        self.sock.connect(str(self._path))


class Device:
    """A folder with an agent.toml, a private Podman store, and `edge up` runs on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "podman.sock"
        self.config = folder / "agent.toml"
        self.config.write_text('[podman]\nsocket = "podman.sock"\n[storage]\nstate_dir = "state"\n')
        self.running: list[subprocess.Popen[bytes]] = []
        self.podman = (
            "podman",
            *("--root", f"{folder}/root", "--runroot", f"{folder}/runroot", "--tmpdir", f"{folder}/runroot/libpod"),
            *choose_podman_flags(read_facts()),
        )

    def up(self, *more: str, env: dict[str, str] | None = None) -> "Up":
        return Up(self, more, env or {})

    def pid_of(self, name: str, unlike: int = 0) -> int:
        path = self.folder / "state" / "run" / f"{name}.pid"
        until(lambda: path.exists() and int(path.read_text()) != unlike)
        return int(path.read_text())

    def request(self, method: str, path: str, body: object = None) -> dict[str, object]:
        connection = Connection(self.socket)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status < 400, (answer.status, data)
            return json.loads(data) if data.startswith(b"{") else {}
        finally:
            connection.close()

    def import_busybox(self) -> None:
        with tarfile.open(self.folder / "image.tar", "w") as tar:
            tar.add("/bin/busybox", "bin/busybox")
        subprocess.run(
            (*self.podman, "import", self.folder / "image.tar", "localhost/busybox:1"), check=True, capture_output=True
        )

    def start_container(self) -> int:
        limits = [{"type": name, "soft": n, "hard": n} for name, n in choose_ulimits(read_facts())]
        made = self.request(
            "POST",
            "/v4.0.0/libpod/containers/create",
            {
                "image": "localhost/busybox:1",
                "command": ["/bin/busybox", "sleep", "1000"],
                "netns": {"nsmode": "none"},
                "r_limits": limits,
            },
        )
        self.request("POST", f"/v4.0.0/libpod/containers/{made['Id']}/start")
        state = self.request("GET", f"/v4.0.0/libpod/containers/{made['Id']}/json")["State"]
        assert isinstance(state, dict)
        return int(state["Pid"])

    def clean(self) -> None:
        for process in self.running:
            process.terminate()
            process.wait(_PATIENCE_SECONDS)
        subprocess.run((*self.podman, "rm", "--force", "--all", "--time", "0"), check=True, capture_output=True)
        unmount_images(self.folder / "state" / "images")
        # Conmon starts a clean-up of its own for each container that ends; it mounts and writes here.
        until(lambda: not processes_naming(self.folder), lambda: str(processes_naming(self.folder)))
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(("umount", mount), check=True)


class Up:
    def __init__(self, device: Device, more: tuple[str, ...], env: dict[str, str]) -> None:
        self.output = device.folder / f"out{len(device.running)}"
        own = ("--podman-root", f"{device.folder}/root", "--podman-runroot", f"{device.folder}/runroot")
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                (sys.executable, "-c", _RUNNER, "--config", str(device.config), *own, *more),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(Path.cwd()), **env},
            )
        device.running.append(self.process)

    def text(self) -> str:
        return self.output.read_text()

    def ready(self) -> "Up":
        until(lambda: "edge is up" in self.text() and "[agent] agent runs" in self.text(), self.text)
        return self

    def end(self) -> int:
        return self.process.wait(_PATIENCE_SECONDS)


@pytest.fixture
def device() -> Iterator[Device]:
    # Not tmp_path: a Unix socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="edge-up-"))
    device = Device(folder)
    yield device
    device.clean()
    shutil.rmtree(folder)


@pytest.mark.podman
def test_the_service_comes_with_the_first_call_and_goes_when_idle(device: Device) -> None:
    device.up("--podman-idle-seconds", "1").ready()
    service = device.folder / "state" / "run" / "podman.pid"
    assert not service.exists()
    for _ in range(2):
        device.request("GET", "/_ping")
        until(lambda: not service.exists())


@pytest.mark.podman
def test_containers_do_not_notice_what_dies_around_them(device: Device) -> None:
    device.import_busybox()
    first = device.up().ready()
    container = device.start_container()

    service = device.pid_of("podman")
    os.kill(service, signal.SIGKILL)
    device.request("GET", "/_ping")
    assert device.pid_of("podman", unlike=service) != service
    assert alive(container), "killed: Podman's service"

    agent = device.pid_of("agent")
    first.process.kill()
    first.end()
    until(lambda: not alive(agent))
    assert alive(container), "killed: edge up"

    second = device.up().ready()
    listed = device.request("GET", "/v4.0.0/libpod/info")["store"]
    assert isinstance(listed, dict)
    assert listed["containerStore"]["running"] == 1

    second.process.terminate()
    assert second.end() == 0
    assert alive(container), "stopped: edge up"
    assert not device.socket.exists()


@pytest.mark.podman
def test_a_container_gets_neither_our_variables_nor_podmans_socket(device: Device) -> None:
    device.import_busybox()
    device.up().ready()
    container = device.start_container()
    conmon = int(Path(f"/proc/{container}/stat").read_text().rpartition(")")[2].split()[1])
    listening = next(
        row[6]
        for row in map(str.split, Path("/proc/net/unix").read_text().splitlines())
        if row[-1] == str(device.socket) and row[3] == _ACCEPTS_CONNECTIONS
    )
    for pid in (container, conmon):
        assert f"socket:[{listening}]" not in [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        assert not re.search(rb"LISTEN_|NOTIFY_SOCKET", Path(f"/proc/{pid}/environ").read_bytes())
    assert os.getsid(conmon) not in {os.getsid(device.pid_of("podman")), os.getsid(device.running[0].pid)}


@pytest.mark.podman
def test_a_second_edge_up_on_the_same_state_is_refused(device: Device) -> None:
    device.up().ready()
    second = device.up()
    assert second.end() == 5
    assert "another `edge up` runs on" in second.text()
    device.request("GET", "/_ping")


@pytest.mark.podman
def test_the_storage_variable_is_refused_with_the_way_out(device: Device) -> None:
    refused = device.up(env={"CONTAINERS_STORAGE_CONF": "/x"})
    assert refused.end() == 2
    assert "/etc/containers/storage.conf" in refused.text()


def test_a_host_without_podman_is_told_what_to_install(device: Device) -> None:
    refused = device.up(env={"PATH": "/nonexistent"})
    assert refused.end() == 1
    assert "apt install podman" in refused.text()


def test_an_unprivileged_user_is_refused() -> None:
    with pytest.raises(RefusedError, match="as root"):
        up._check_host({}, 1000)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[podman", "not TOML"),
        ("[podman]\n", r"\[podman\] socket"),
        ("podman = 1\n", r"\[podman\] socket"),
        ('[podman]\nsocket = "s"\n', r"\[storage\] state_dir"),
        (f'[podman]\nsocket = "/{"s" * 107}"\n', "at most 107"),
        ("\x00", "not TOML"),
    ],
)
def test_a_config_that_is_wrong_is_told_where(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=told):
        up.read_config(path)


def test_a_config_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file"):
        up.read_config(tmp_path / "agent.toml")


def test_paths_in_the_config_are_relative_to_it(device: Device) -> None:
    config = up.read_config(device.config)
    assert config == up.UpConfig(
        device.folder / "podman.sock", device.folder / "state", device.folder / "state" / "run" / "images.sock"
    )
    device.config.write_text('[podman]\nsocket = "unix:///run/p.sock"\n[storage]\nstate_dir = "/var/lib/edge"\n')
    assert up.read_config(device.config) == up.UpConfig(
        Path("/run/p.sock"), Path("/var/lib/edge"), Path("/var/lib/edge/run/images.sock")
    )


def test_podman_gets_storage_flags_only_when_asked() -> None:
    parser = argparse.ArgumentParser()
    up.add_arguments(parser)
    facts = read_facts()
    plain = up.podman_command(parser.parse_args(["--config", "x"]), facts)
    assert plain[1:] == choose_podman_flags(facts)
    asked = up.podman_command(
        parser.parse_args(["--config", "x", "--podman-storage-opt", "overlay.mount_program="]), facts
    )
    assert asked[len(plain) :] == ("--storage-opt", "overlay.mount_program=")
