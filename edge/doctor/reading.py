"""Look at this device: nothing is changed, nothing waits long, and what cannot be read is a fact as well."""

import http.client
import os
import platform
import shutil
import socket
import ssl
import subprocess
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.agent.adapters.clock import SystemClock
from edge.agent.adapters.device_files import parse_life_time, parse_pre_eol
from edge.agent.check import check_config
from edge.agent.config import AgentConfig, load_config
from edge.agent.device_key import validity
from edge.agent.local_status import local_status
from edge.doctor.facts import (
    DeviceFacts,
    DiskFacts,
    IdentityFacts,
    KernelFacts,
    PodmanFacts,
    ServiceFacts,
    WearFacts,
)
from edge.errors import EdgeError, InvalidInputError
from edge.image_service import ask
from edge.podman_host import cgroup_mode, v1_memory_controller

_PATIENCE_SECONDS: Final = 10.0
_SBIN: Final = "/usr/local/sbin:/usr/sbin:/sbin"
_FIRMWARE: Final = ("boot/firmware/cmdline.txt", "boot/cmdline.txt")


class Device:
    """A device below `root`; another root is a made-up one.

    Args:
        config_file: Its `agent.toml`.
        root: Where `/proc`, `/sys`, `/dev`, `/boot` and `/etc` are.
    """

    def __init__(self, config_file: Path, root: Path = Path("/")) -> None:
        self._config_file = config_file
        self._root = root

    def facts(self) -> DeviceFacts:
        """Look."""
        config, wrong = self._config()
        return DeviceFacts(
            now=datetime.now(UTC),
            clock_synchronized=SystemClock().is_synchronized(),
            kernel=self.kernel(),
            podman=self.podman(Path("/run/podman/podman.sock") if config is None else config.podman_socket),
            identity=self._identity(config, wrong),
            disks=self._disks(config),
            wear=self.wear(),
            services=ServiceFacts(images_problem="not enrolled") if config is None else _services(config),
        )

    # --- the machine

    def kernel(self) -> KernelFacts:
        """The kernel and what it gives."""
        mode = cgroup_mode(self._read("proc/self/mounts"))
        controllers = self._read("sys/fs/cgroup/cgroup.controllers").split()
        files = (self._root / name for name in _FIRMWARE)
        return KernelFacts(
            release=self._read("proc/sys/kernel/osrelease").strip() or platform.release(),
            cgroup_mode=mode,
            memory_controller="memory" in controllers or v1_memory_controller(self._read("proc/cgroups")),
            cmdline_file=next((path for path in files if path.is_file()), None),
            filesystems=frozenset(line.split()[-1] for line in self._read("proc/filesystems").splitlines() if line),
            fuse_device=(self._root / "dev/fuse").exists(),
            systemd=(self._root / "run/systemd/system").is_dir(),
        )

    def wear(self) -> WearFacts:
        """How worn the storage is."""
        hosts = self._root / "sys/class/mmc_host"
        lives = [parse_life_time(_text(path)) for path in hosts.glob("*/*/life_time")]
        reserves = [parse_pre_eol(_text(path)) for path in hosts.glob("*/*/pre_eol_info")]
        counts = [(path.parent.name, _text(path)) for path in (self._root / "sys/fs/ext4").glob("*/errors_count")]
        return WearFacts(
            life_tenths=max((life for life in lives if life is not None), default=None),
            reserve=max((one for one in reserves if one is not None), default=None),
            filesystem_errors=tuple((name, int(text)) for name, text in counts if text.strip().isdigit() and int(text)),
        )

    def podman(self, service: Path) -> PodmanFacts:
        """Podman, its service and its store."""
        storage = _toml(self._root / "etc/containers/storage.conf").get("storage")
        storage = storage if isinstance(storage, dict) else {}
        options = storage.get("options")
        stores = options.get("additionalimagestores") if isinstance(options, dict) else None
        return PodmanFacts(
            version=_output("podman", "--version").rpartition(" ")[2],
            runtimes=tuple(name for name in ("crun", "runc") if _which(name)),
            problem=_ping(service),
            image_stores=tuple(map(str, stores)) if isinstance(stores, list) else (),
            driver=str(storage.get("driver", "")),
        )

    def _disks(self, config: AgentConfig | None) -> tuple[DiskFacts, ...]:
        wanted = [("system", self._root), ("containers", Path("/var/lib/containers"))]
        if config is not None:
            wanted.append(("state", config.state_dir))
        found: dict[int, DiskFacts] = {}
        for where, path in wanted:
            # Two that are one file system are said once.
            disk = _disk(where, path)
            if disk is not None:
                found.setdefault(path.stat().st_dev, disk)
        return tuple(found.values())

    # --- the fleet

    def _config(self) -> tuple[AgentConfig | None, str]:
        try:
            check_config(self._config_file)
            return load_config(self._config_file), ""
        except EdgeError as error:
            problems = error.problems if isinstance(error, InvalidInputError) else ()
            why = "; ".join(f"{key}: {text}" for key, text in problems) or str(error)
        try:
            return load_config(self._config_file), why
        except EdgeError:
            return None, why

    def _identity(self, config: AgentConfig | None, wrong: str) -> IdentityFacts:
        if config is None or wrong:
            return IdentityFacts(self._config_file.exists(), wrong)
        broker = f"{config.broker_host}:{config.broker_port}"
        # What the agent renewed counts; before its first start there is only what was handed over.
        renewed = config.state_dir / "identity.pem"
        certificate, key = (renewed, renewed) if renewed.exists() else (config.cert_file, config.key_file)
        if certificate is None or key is None:
            return IdentityFacts(enrolled=True, config_problem="", broker=broker, broker_problem=_reach(config))
        try:
            begins, ends = validity(certificate.read_bytes())
        except (EdgeError, OSError) as error:
            return IdentityFacts(enrolled=True, config_problem=str(error), broker=broker)
        return IdentityFacts(
            enrolled=True,
            config_problem="",
            broker=broker,
            broker_problem=_reach(config, certificate, key),
            valid_from=begins,
            valid_until=ends,
        )

    def _read(self, name: str) -> str:
        return _text(self._root / name)


def _services(config: AgentConfig) -> ServiceFacts:
    store = config.state_dir / "images" / "store"
    try:
        status = local_status(config)
    except EdgeError:
        status = {"running": False, "connection": {}}
    link = status["connection"]
    problems: tuple[tuple[str, str], ...] = ()
    silent = ""
    try:
        images = ask(config.images_socket, op="list")
        problems = tuple((_name(image), str(image["problem"])) for image in images if image.get("problem"))
    except EdgeError as error:
        silent = str(error)
    return ServiceFacts(
        agent_running=bool(status["running"]),
        agent_link="" if link.get("connected") else str(link.get("reason", "")),
        images_problem=silent,
        store=str(store),
        store_mounted=(store / "overlay").is_mount(),
        image_problems=problems,
    )


def _name(image: dict[str, object]) -> str:
    names = image.get("names")
    return str(names[0]) if isinstance(names, list) and names else str(image.get("imageId", ""))[:12]


def _ping(path: Path) -> str:
    """Ask Podman's service whether it is there; why not, or nothing."""
    connection = http.client.HTTPConnection("d", timeout=_PATIENCE_SECONDS)
    try:
        with socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.settimeout(_PATIENCE_SECONDS)
            connection.sock.connect(str(path))
            connection.request("GET", "/_ping")
            status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"nobody answers on {path}: {error}"
    return "" if status == http.client.OK else f"it answers {status} on {path}"


def _reach(config: AgentConfig, certificate: Path | None = None, key: Path | None = None) -> str:
    """Connect to the broker as the agent does, up to the end of the TLS handshake; why it fails, or nothing."""
    try:
        with socket.create_connection((config.broker_host, config.broker_port), timeout=_PATIENCE_SECONDS) as raw:
            if config.ca_file is None:
                return ""
            context = ssl.create_default_context(cafile=str(config.ca_file))
            if certificate is not None:
                context.load_cert_chain(certificate, key)
            with context.wrap_socket(raw, server_hostname=config.broker_host):
                return ""
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not the fleet's: {error.verify_message}"
    except (OSError, ssl.SSLError) as error:
        return error.strerror or str(error)


def _disk(where: str, path: Path) -> DiskFacts | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return DiskFacts(
        where=where,
        path=path,
        size=found.f_blocks * found.f_frsize,
        free=found.f_bavail * found.f_frsize,
        inodes_free=found.f_favail / found.f_files if found.f_files else None,
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def _output(*command: str) -> str:
    program = _which(command[0])
    if program is None:
        return ""
    words: Sequence[str] = (program, *command[1:])
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
