"""The operator's side on this host, in a temporary folder: fleet, Mosquitto, registry, Ansible, packages and wheels."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.mosquitto import Mosquitto, free_port
from tests.support.registry import Registry
from tests.vm.image import CACHE
from tests.vm.machine import HOST, Machine

ROOT: Final = Path(__file__).resolve().parents[2]
DEVICE: Final = "vm-1"
SUITE: Final = "bookworm"
PLAY_LOG: Final = ROOT / "build" / "vm-test.log"
"""What every play said."""
_RECAP: Final = re.compile(rf"^{DEVICE}\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Played:
    """How a play ended on the device."""

    code: int
    changed: int
    failed: int
    unreachable: int
    text: str


class Operator:
    """`with Operator(folder, machine) as operator:`; the registry and the broker run meanwhile."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self._folder = folder
        self._machine = machine
        self._ending = ExitStack()
        self._device_port, self._operator_port = free_port(), free_port()
        self.registry = Registry(folder / "registry")
        self.broker: Mosquitto | None = None
        self._play_begins = 0

    def __enter__(self) -> Self:
        self._ending.enter_context(self.registry)
        self.edge("fleet", "init", "--cluster", "vm", "--broker", f"{HOST}:{self._device_port}",
                  "--operator-host", "127.0.0.1", "--operator-port", str(self._operator_port))  # fmt: skip
        self.edge("fleet", "broker-config", str(self._folder / "broker"), "--address", "127.0.0.1",
                  "--name", "127.0.0.1", "--user", "root")  # fmt: skip
        config = (self._folder / "broker" / "mosquitto.conf").read_text()
        self.broker = Mosquitto(self._folder / "mosquitto", config, (self._device_port, self._operator_port))
        self._ending.enter_context(self.broker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    # --- the fleet

    def edge(self, *arguments: str, seconds: float = 900.0) -> str:
        """Run an `edge` command of this working copy."""
        (self._folder / "registries.conf").write_text(
            f'[[registry]]\nlocation = "{self.registry.address}"\ninsecure = true\n'
        )
        environment = {
            **os.environ, "EDGE_FLEET": str(self._folder / "fleet"), "NO_COLOR": "1",
            "CONTAINERS_REGISTRIES_CONF": str(self._folder / "registries.conf"),
        }  # fmt: skip
        done = subprocess.run(
            (sys.executable, "-m", "edge", *arguments), cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"edge {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def edge_json(self, *arguments: str) -> Any:
        """Run an `edge` command and read its JSON."""
        return json.loads(self.edge(*arguments, "--output", "json"))

    def push_image(self, name: str, architecture: str) -> str:
        """Build one of this project's images, push and index it; its reference, as the device sees it."""
        build = (sys.executable, str(ROOT / "images" / "build"), "--insecure", "--push", self.registry.address)
        subprocess.run((*build, "--only", name, "--arch", architecture), check=True, capture_output=True)
        self.edge("image", "index", "push", f"{self.registry.address}/{name}:1")
        return f"{HOST}:{self.registry.port}/{name}:1"

    def register(self, family: str, definition: Mapping[str, Any]) -> None:
        """Register a task definition of one container."""
        path = self._folder / f"{family}.json"
        document = {"family": family, "requiresCompatibilities": ["EXTERNAL"], "networkMode": "bridge",
                    "containerDefinitions": [definition]}  # fmt: skip
        path.write_text(json.dumps(document))
        self.edge("task-definition", "register", str(path))

    def reload_broker(self) -> None:
        """Let Mosquitto read its access list again."""
        assert self.broker is not None
        self.broker.signal(signal.SIGHUP)

    # --- Ansible

    def inventory(self, offline: Path, **more: Any) -> Path:
        """Write the inventory of the one device."""
        assert self.broker is not None
        words = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self._machine.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self._machine.image.ssh_key),
            "ansible_ssh_common_args": " ".join(self._machine.ssh_options()),
            "base_offline_dir": str(offline),
            "base_watchdog_seconds": 15,
            "edge_cluster": "vm",
            "edge_broker_host": HOST,
            "edge_broker_port": self._device_port,
            "edge_health_seconds": 900,
            "podman_registries": [{"location": f"{HOST}:{self.registry.port}", "insecure": True}],
            "enroll_fleet_dir": str(self._folder / "fleet"),
            "enroll_edge_command": str(Path(sys.executable).with_name("edge")),
            "enroll_after_command": ["kill", "-HUP", str(self.broker.pid)],
            **more,
        }
        path = self._folder / "inventory.json"
        path.write_text(json.dumps({"devices": {"hosts": {DEVICE: words}}}))
        return path

    def start_play(self, playbook: str, inventory: Path, *more: str) -> "subprocess.Popen[bytes]":
        """Begin a play, one at a time; `finish_play` waits for it, and its log can be followed meanwhile."""
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"), "ANSIBLE_TIMEOUT": "120",
                       "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"}  # fmt: skip
        program = Path(sys.executable).with_name("ansible-playbook")
        with PLAY_LOG.open("ab") as log:
            self._play_begins = log.tell()
            return subprocess.Popen(
                [program, "-i", str(inventory), str(ROOT / "ansible" / "playbooks" / playbook), *more],
                env=environment, cwd=ROOT / "ansible", stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def finish_play(self, process: "subprocess.Popen[bytes]") -> Played:
        """Wait for the play; its log is kept beside the figures."""
        process.wait(7200)
        text = PLAY_LOG.read_bytes()[self._play_begins :].decode()
        found = _RECAP.search(text)
        _, changed, unreachable, failed = map(int, found.groups()) if found else (0, 0, 0, 0)
        return Played(process.returncode, changed, failed, unreachable, text)

    def play(self, playbook: str, inventory: Path, *more: str) -> Played:
        """Run a play that must succeed."""
        done = self.finish_play(self.start_play(playbook, inventory, *more))
        assert done.code == 0, done.text[-6000:]
        return done


def offline_site(architecture: str, folder: Path, version: str, *, broken: bool = False) -> Path:
    """Make what a device without internet is installed from, with the runtime under this version number.

    The packages are kept in the cache; the wheels are of this working copy.

    Args:
        broken: The agent of this version ends at once.
    """
    packages = CACHE / f"packages-{SUITE}-{architecture}"
    command = (ROOT / "ansible" / "offline-site", "--suite", SUITE, "--arch", architecture)
    if not (packages / "debs.tar").exists():
        subprocess.run([*command, "--no-wheels", str(packages)], check=True, capture_output=True)
    source = folder / f"source-{version}"
    source.mkdir(parents=True)
    for name in ("edge", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    for name in ("pyproject.toml", "edge/__init__.py"):
        path = source / name
        path.write_text(re.sub(r'(?m)^((?:__version__|version) = )"[^"]+"', rf'\1"{version}"', path.read_text()))
    if broken:
        with (source / "edge" / "agent" / "app.py").open("a") as file:
            file.write('\n\nraise RuntimeError("this version is broken on purpose")\n')
    site = folder / f"site-{version}"
    environment = {**os.environ, "EDGE_SOURCE": str(source), "PIP": str(Path(sys.executable).with_name("pip"))}
    subprocess.run([*command, "--no-debs", str(site)], check=True, capture_output=True, env=environment)
    (site / "debs.tar").symlink_to(packages / "debs.tar")
    return site
