"""Everything a fleet of one device needs on one host, in a temporary folder, and a check that nothing of it stays."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.podman_host import choose_podman_flags, choose_ulimits, read_facts
from tests.support.images import unmount_images
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.registry import Registry
from tests.support.shaped import ShapedRegistry

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "pi-1"
PATIENCE_SECONDS = 60.0


class StageError(Exception):
    """A step did not do what it should; the text is for the reader of the timeline."""


class Stage:
    """`with Stage() as stage:`; a registry runs at once, broker and device when they are asked for.

    Everything is in `folder`: the fleet, the broker's files, the device's, Podman's store.
    """

    def __init__(self) -> None:
        # Short: a socket's path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="edge-", dir="/tmp"))
        self.registry = Registry(self.folder / "registry")
        self.slow = ShapedRegistry(self.folder / "slow")
        self.up: subprocess.Popen[bytes] | None = None
        self._device_port, self._operator_port = free_port(), free_port()
        self._bridge = f"edge{secrets.token_hex(3)}"
        self._namespaces: set[str] = set()
        self._ending = ExitStack()

    @property
    def state_dir(self) -> Path:
        """The agent's."""
        return self.folder / "device" / "state"

    @property
    def up_log(self) -> Path:
        """What `edge up` and its children printed."""
        return self.folder / "up.log"

    def __enter__(self) -> Self:
        self._ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._ending.callback(_unmount_below, self.folder)
        self._ending.enter_context(self.registry)
        self._ending.enter_context(self.slow)
        registries = (self.registry.address, self.slow.registry.address)
        (self.folder / "registries.conf").write_text(
            "".join(f'[[registry]]\nlocation = "{one}"\ninsecure = true\n' for one in registries)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def images_socket(self) -> Path:
        """The image service's."""
        return self.state_dir / "run" / "images.sock"

    def edge(self, *arguments: str, allowed: Sequence[int] = (0,), registries: bool = False) -> str:
        """Run an `edge` command on the fleet and return what it printed; on request with the device's registries."""
        environment = self._podman_environment() if registries else dict(os.environ)
        done = subprocess.run(
            (sys.executable, "-m", "edge", *arguments),
            cwd=ROOT,
            env={**environment, "EDGE_FLEET": str(self.folder / "fleet"), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS * 2,
            check=False,
        )
        if done.returncode not in allowed:
            raise StageError(f"edge {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def edge_json(self, *arguments: str) -> Any:
        """Run an `edge` command and read its JSON."""
        text = self.edge(*arguments, "--output", "json")
        return json.loads(text[text.index("{") :] if "{" in text else text)

    def build_images(self, *names: str, registry: Registry | None = None) -> str:
        """Build the project's own images for this host and push them to the registry."""
        address = (registry or self.registry).address
        command = (sys.executable, str(ROOT / "images" / "build"), "--insecure", "--push", address)
        done = subprocess.run((*command, "--only", ",".join(names)), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StageError(done.stderr)
        return done.stdout.strip()

    def make_fleet(self) -> None:
        """Make the fleet, its broker's folder and the device's identity."""
        self.edge(
            *("fleet", "init", "--cluster", "demo", "--broker", f"127.0.0.1:{self._device_port}"),
            *("--operator-port", str(self._operator_port)),
        )
        self.edge("fleet", "broker-config", str(self.folder / "broker"), "--address", "127.0.0.1", "--user", "root")
        self.edge("device", "add", DEVICE, "--out", str(self.folder / "device"))

    def start_broker(self) -> None:
        """Start Mosquitto on what `edge fleet broker-config` wrote."""
        config = (self.folder / "broker" / "mosquitto.conf").read_text()
        ports = (self._device_port, self._operator_port)
        self._ending.enter_context(Mosquitto(self.folder / "mosquitto", config, ports))

    def start_device(self) -> None:
        """`edge up` with a Podman store of its own; returns when the device is online."""
        config = self.folder / "device" / "agent.toml"
        config.write_text(_with_private_socket(config.read_text()))
        self._make_network()
        command = (sys.executable, "-m", "edge", "up", "--config", str(config), *self._store("--podman-"))
        with self.up_log.open("ab") as log:
            self.up = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._podman_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._ending.callback(self._end_device, self.up)
        self.until("the device is online", self._online)

    def _make_network(self) -> None:
        # Each store gives out addresses for itself; on a bridge of our own they cannot meet those of the host's Podman.
        conf = self.folder / "containers.conf"
        conf.write_text(f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{self.folder}/networks"\n')
        subnet = f"10.{secrets.randbelow(50) + 200}.{secrets.randbelow(256)}.0/24"
        self.podman("network", "create", "--disable-dns", "--subnet", subnet, self._bridge)
        # Podman 4.3 has no --interface-name, and would take a name that the host's Podman may take later.
        file = self.folder / "networks" / f"{self._bridge}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "network_interface": self._bridge}))
        # Named only now: Podman takes a default network that has no file yet for one that exists.
        conf.write_text(f'{conf.read_text()}default_network = "{self._bridge}"\n')

    def agent_pid(self) -> int:
        """The agent's process id; 0 while there is none."""
        try:
            return int((self.state_dir / "agent.pid").read_text())
        except (OSError, ValueError):
            return 0

    def containers(self) -> dict[str, tuple[str, int]]:
        """Each running container's id and process id, by its name, asked of Podman itself."""
        listed = json.loads(self.podman("ps", "--format", "json") or "[]")
        found = {one["Names"][0]: (one["Id"], int(one["Pid"])) for one in listed}
        if found:
            keys = self.podman("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", *found).split()
            self._namespaces.update(keys)
        return found

    def podman(self, *arguments: str) -> str:
        """Run Podman's command on the device's store."""
        command = ("podman", *choose_podman_flags(read_facts()), *self._store("--"))
        tmpdir = ("--tmpdir", str(self.folder / "runroot" / "libpod"))
        done = subprocess.run(
            (*command, *tmpdir, *arguments),
            env=self._podman_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StageError(f"podman {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def podman_from_nothing(self, image: str, ready: str) -> float:
        """Pull and run an image on an empty store; returns the seconds until the container prints `ready`."""
        places = ("--root", str(self.folder / "r2"), "--runroot", str(self.folder / "rr2"))
        flags = (*choose_podman_flags(read_facts()), *places, "--tmpdir", str(self.folder / "rr2" / "libpod"))
        limits = tuple(part for name, most in choose_ulimits(read_facts()) for part in ("--ulimit", f"{name}={most}"))
        run = ("run", "--quiet", "--network", "none", "--name", "alone", *limits, image)
        began = time.monotonic()
        with subprocess.Popen(
            ("podman", *flags, *run), env=self._podman_environment(), stdout=subprocess.PIPE, text=True
        ) as running:
            try:
                found = next((line for line in running.stdout or () if ready in line), "")
                took = time.monotonic() - began
            finally:
                remove = ("podman", *flags, "rm", "--force", "--time", "0", "--ignore", "alone")
                subprocess.run(remove, env=self._podman_environment(), check=False, capture_output=True)
        if not found:
            raise StageError(f"podman run {image} did not say {ready}")
        return took

    def until(self, what: str, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise StageError(f"waited {seconds:g} s in vain until {what}\n{self.tail()}")
            time.sleep(0.05)

    def tail(self) -> str:
        """The last lines of `edge up`."""
        with suppress(OSError):
            return "\n".join(self.up_log.read_text(errors="replace").splitlines()[-20:])
        return ""

    def end(self) -> None:
        """End everything, whatever failed before."""
        self._ending.close()

    def left_behind(self) -> list[str]:
        """After `end`: processes, mounts, network namespaces and files that are still there."""
        folder = str(self.folder)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if folder in line]
        namespaces = sorted(name for name in self._namespaces if Path(name).exists())
        return [
            *(f"process {found}" for found in _processes_naming(folder)),
            *(f"mount {found}" for found in mounts),
            *(f"network namespace {found}" for found in namespaces),
            *([f"network namespace {self.slow.name}"] if Path("/run/netns", self.slow.name).exists() else []),
            *([f"bridge {self._bridge}"] if Path("/sys/class/net", self._bridge).exists() else []),
            *([f"folder {folder}"] if self.folder.exists() else []),
        ]

    def _online(self) -> bool:
        if self.up is not None and self.up.poll() is not None:
            raise StageError(f"edge up ended with {self.up.returncode}:\n{self.tail()}")
        return '"ONLINE"' in self.edge("device", "ls", "--output", "json")

    def _podman_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }

    def _store(self, prefix: str) -> tuple[str, ...]:
        store = (f"{prefix}root", str(self.folder / "root"), f"{prefix}runroot", str(self.folder / "runroot"))
        images = self.state_dir / "images" / "store"
        # `edge up` says so to its Podman by itself.
        more = ("--storage-opt", f"additionalimagestore={images}") if prefix == "--" and images.is_dir() else ()
        return (*store, *more)

    def _end_device(self, up: subprocess.Popen[bytes]) -> None:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(PATIENCE_SECONDS)
        finally:
            up.kill()
            with suppress(StageError):
                self.podman("rm", "--all", "--force", "--time", "0", "--volumes")
            end = time.monotonic() + PATIENCE_SECONDS / 4
            while _processes_naming(str(self.folder / "root")) and time.monotonic() < end:
                time.sleep(0.05)  # conmon and its clean-up process end by themselves.
            unmount_images(self.state_dir / "images")


def _with_private_socket(config: str) -> str:
    lines = [line for line in config.splitlines() if not line.startswith(("socket", "[podman]"))]
    return "\n".join(lines) + '\n\n[podman]\nsocket = "podman.sock"\n'


def _unmount_below(folder: Path) -> None:
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted((one for one in points if one.startswith(f"{folder}/")), reverse=True):
        subprocess.run(("umount", point), check=False, capture_output=True)


def _processes_naming(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            found += [f"{path.parent.name} {command[:120]}"] if text in command else []
    return found
