"""The machine a device is: what it has, what a task may take of it, which ports are free."""

import os
import platform
import re
import time
from pathlib import Path
from typing import Final

from edge.agent.engine.ports import HostFacts
from edge.errors import EngineError
from edge.podman_host import CgroupMode, read_facts

_ARCHITECTURES: Final = {"x86_64": "X86_64", "aarch64": "ARM64", "arm64": "ARM64"}
_PAUSE_SECONDS: Final = 0.02
_LISTEN: Final = "0A"
"""TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""
_CPU_PERIOD: Final = 100_000
"""Microseconds; the kernel's default for cpu.max and cfs_period_us."""
_DEFAULT_PORTS: Final = range(49153, 65536)
"""ECS's dynamic range where the kernel's cannot be read."""
_FOLDER: Final = "edge"
_EMPTY_SECONDS: Final = 5.0
"""How long the monitor (conmon) of a container that is gone may take to end: its clean-up, on a slow device."""


class LinuxHost:
    """`Host` fulfilled by /proc and /sys."""

    def __init__(self, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._cgroup = cgroup
        self._podman = read_facts()

    def facts(self) -> HostFacts:
        """See `Host`.

        Raises:
            EngineError: Neither ARM64 nor x86-64.
        """
        machine = platform.machine()
        if machine not in _ARCHITECTURES:
            raise EngineError(f"edge runs on ARM64 and x86-64; this is {machine}", hint="Use a 64-bit system.")
        memory = re.search(r"^MemTotal:\s+(\d+) kB", self._read("meminfo"), re.MULTILINE)
        return HostFacts(
            boot_id=self._read("sys/kernel/random/boot_id").strip(),
            architecture=_ARCHITECTURES[machine],
            cpu_units=1024 * (os.cpu_count() or 1),
            memory_mib=int(memory[1]) // 1024 if memory else 0,
            kernel=platform.release(),
            os_name=_os_name(),
            memory_limits=self._podman.memory_controller,
        )

    def limit_task(self, task_id: str, *, cpu_units: int | None, memory_mib: int | None) -> str:
        """See `Host`. With systemd the parent is a slice of its own; its limits are set through systemd."""
        if cpu_units is None and memory_mib is None:
            return ""
        if self._podman.systemd:
            return self._limit_slice(task_id, cpu_units, memory_mib)
        try:
            if self._podman.cgroup_mode is CgroupMode.UNIFIED:
                self._limit_unified(task_id, cpu_units, memory_mib)
            else:
                self._limit_legacy(task_id, cpu_units, memory_mib)
        except OSError as error:
            raise EngineError(
                f"the kernel does not take the limits of task {task_id}: {error.filename}: {error.strerror}",
                reason="CannotCreateContainerError",
                hint="Leave out cpu and memory of the task, or free the memory it would begin with.",
            ) from error
        return f"/{_FOLDER}/{task_id}"

    def real_path(self, path: str) -> str:
        """See `Host`."""
        return os.path.realpath(path)

    def release_task(self, task_id: str) -> None:
        """See `Host`."""
        if self._podman.systemd:
            for path in Path("/run/systemd/system").glob(f"{_slice(task_id)}*"):
                _remove_quietly(path)
            return
        deadline = time.monotonic() + _EMPTY_SECONDS
        while left := [*self._cgroup.glob(f"*/{_FOLDER}/{task_id}"), *self._cgroup.glob(f"{_FOLDER}/{task_id}")]:
            for folder in left:
                _remove_cgroup(folder)
            if time.monotonic() > deadline:
                return
            time.sleep(_PAUSE_SECONDS)

    def ports_in_use(self, protocol: str) -> frozenset[int]:
        """See `Host`."""
        ports: set[int] = set()
        for name in (protocol, f"{protocol}6"):
            for line in self._read(f"net/{name}").splitlines()[1:]:
                fields = line.split()
                if protocol == "udp" or fields[3] == _LISTEN:
                    ports.add(int(fields[1].rpartition(":")[2], 16))
        return frozenset(ports)

    def dynamic_port_range(self) -> range:
        """See `Host`."""
        numbers = self._read("sys/net/ipv4/ip_local_port_range").split()
        return range(int(numbers[0]), int(numbers[1]) + 1) if len(numbers) == 2 else _DEFAULT_PORTS  # noqa: PLR2004

    def _limit_unified(self, task_id: str, cpu_units: int | None, memory_mib: int | None) -> None:
        parent = self._cgroup / _FOLDER
        folder = parent / task_id
        for holder in (self._cgroup, parent):
            holder.mkdir(exist_ok=True)
            (holder / "cgroup.subtree_control").write_text("+cpu +memory +pids")
        folder.mkdir(exist_ok=True)
        if cpu_units is not None:
            (folder / "cpu.max").write_text(f"{cpu_units * _CPU_PERIOD // 1024} {_CPU_PERIOD}")
        if memory_mib is not None:
            (folder / "memory.max").write_text(str(memory_mib * 1024 * 1024))

    def _limit_legacy(self, task_id: str, cpu_units: int | None, memory_mib: int | None) -> None:
        if cpu_units is not None and (self._cgroup / "cpu").is_dir():
            folder = self._cgroup / "cpu" / _FOLDER / task_id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpu.cfs_period_us").write_text(str(_CPU_PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(cpu_units * _CPU_PERIOD // 1024))
        if memory_mib is not None and (self._cgroup / "memory").is_dir():
            folder = self._cgroup / "memory" / _FOLDER / task_id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "memory.use_hierarchy").write_text("1")
            (folder / "memory.limit_in_bytes").write_text(str(memory_mib * 1024 * 1024))

    def _limit_slice(self, task_id: str, cpu_units: int | None, memory_mib: int | None) -> str:
        """A runtime unit file: systemd reads it when Podman asks for the slice, and forgets it at a reboot."""
        lines = ["[Slice]"]
        if cpu_units is not None:
            lines.append(f"CPUQuota={max(1, cpu_units * 100 // 1024)}%")
        if memory_mib is not None:
            lines.append(f"MemoryMax={memory_mib}M")
        path = Path("/run/systemd/system") / _slice(task_id)
        try:
            path.write_text("\n".join(lines) + "\n")
        except OSError as error:
            raise EngineError(f"cannot write {path}: {error.strerror}", hint="Run the agent as root.") from error
        return path.name

    def _read(self, name: str) -> str:
        try:
            return (self._proc / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def _slice(task_id: str) -> str:
    return f"edge-{task_id}.slice"


def _remove_cgroup(folder: Path) -> None:
    """The kernel refuses to remove a group with processes: then it stays."""
    for inner in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _remove_quietly(inner)
    _remove_quietly(folder)


def _remove_quietly(path: Path) -> None:
    try:
        path.rmdir() if path.is_dir() else path.unlink()
    except OSError:
        return


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
