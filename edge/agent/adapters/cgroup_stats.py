"""`ContainerMeter` fulfilled by the kernel's files: one pass for all containers, no Podman, no child process."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.agent.adapters.cgroup_files import (
    UNIFIED,
    Group,
    container_group,
    parse_blkio,
    parse_groups,
    parse_io_stat,
    parse_keyed,
    parse_limit,
    parse_net_dev,
    parse_start_ticks,
)
from edge.agent.telemetry.ports import ContainerSample, RunningContainer

_READ_BYTES: Final = 32 * 1024
"""More than any of the files has; they are made anew by the kernel at each read."""


@dataclass(frozen=True, slots=True)
class _Files:
    """Where one run of a container is counted; an empty folder is a controller this host does not have."""

    start_ticks: int
    cpu: str
    memory: str
    io: str
    unified_cpu: bool
    unified_memory: bool
    unified_io: bool
    own_network: bool


class CgroupMeter:
    """Counts of containers by the process id of each: cgroup v1, v2, and both at once. For one thread."""

    def __init__(self, proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = str(proc)
        self._cgroup = str(cgroup)
        self._milliseconds_per_tick = 1000 / os.sysconf("SC_CLK_TCK")
        self._files: dict[tuple[str, int], _Files] = {}

    def read(self, containers: Sequence[RunningContainer]) -> Mapping[str, ContainerSample]:
        """See `ContainerMeter`."""
        files, samples = {}, {}
        for container in containers:
            key = (container.runtime_id, container.pid)
            known = self._files.get(key) or self._find(container)
            if known is None or known.start_ticks != self._start_ticks(container.pid):
                continue
            sample = self._sample(container.pid, known)
            if sample.cpu_ns is None and sample.memory_bytes is None:
                # The process is ending: its group is gone already, and its exit will be told.
                continue
            files[key] = known
            samples[container.runtime_id] = sample
        self._files = files
        return samples

    def _find(self, container: RunningContainer) -> _Files | None:
        ticks = self._start_ticks(container.pid)
        groups = parse_groups(_read(f"{self._proc}/{container.pid}/cgroup"))
        cpu, unified_cpu = self._folder(groups, "cpuacct", "cpu.stat", container.runtime_id)
        memory, unified_memory = self._folder(groups, "memory", "memory.current", container.runtime_id)
        io, unified_io = self._folder(groups, "blkio", "io.stat", container.runtime_id)
        if ticks is None or not (cpu or memory or io):
            return None
        own = _namespace(f"{self._proc}/{container.pid}/ns/net")
        shared = own == "" or own == _namespace(f"{self._proc}/self/ns/net")
        return _Files(ticks, cpu, memory, io, unified_cpu, unified_memory, unified_io, not shared)

    def _folder(
        self, groups: Mapping[str, Group], controller: str, unified_file: str, runtime_id: str
    ) -> tuple[str, bool]:
        """Return the container's folder for a v1 controller, or its unified one, and whether it is that one."""
        if controller in groups:
            hierarchy, path = groups[controller]
            group = container_group(path, runtime_id)
            for name in (controller, hierarchy):
                folder = f"{self._cgroup}/{name}{group}"
                if group is not None and Path(folder).is_dir():
                    return folder, False
        group = container_group(groups[UNIFIED].path, runtime_id) if UNIFIED in groups else None
        for root in (self._cgroup, f"{self._cgroup}/unified"):
            if group is not None and Path(f"{root}{group}/{unified_file}").exists():
                return f"{root}{group}", True
        return "", False

    def _sample(self, pid: int, files: _Files) -> ContainerSample:
        usage, working_set, limit, kills = _memory(files)
        read, written = _io(files)
        net = parse_net_dev(_read(f"{self._proc}/{pid}/net/dev")) if files.own_network else None
        return ContainerSample(
            since_ms=round(files.start_ticks * self._milliseconds_per_tick),
            cpu_ns=_cpu(files),
            memory_bytes=usage,
            working_set_bytes=working_set,
            memory_limit_bytes=limit,
            oom_kills=kills,
            rx_bytes=net.rx_bytes if net else None,
            tx_bytes=net.tx_bytes if net else None,
            rx_packets=net.rx_packets if net else None,
            tx_packets=net.tx_packets if net else None,
            net_errors=net.errors if net else None,
            read_bytes=read,
            written_bytes=written,
        )

    def _start_ticks(self, pid: int) -> int | None:
        return parse_start_ticks(_read(f"{self._proc}/{pid}/stat"))


def _cpu(files: _Files) -> int | None:
    if files.unified_cpu:
        microseconds = parse_keyed(_read(f"{files.cpu}/cpu.stat")).get("usage_usec")
        return None if microseconds is None else microseconds * 1000
    return _number(f"{files.cpu}/cpuacct.usage") if files.cpu else None


def _memory(files: _Files) -> tuple[int | None, int | None, int | None, int | None]:
    folder = files.memory
    if not folder:
        return None, None, None, None
    if files.unified_memory:
        usage, inactive_key, kills = f"{folder}/memory.current", "inactive_file", f"{folder}/memory.events"
        limit = f"{folder}/memory.max"
    else:
        usage, inactive_key = f"{folder}/memory.usage_in_bytes", "total_inactive_file"
        limit, kills = f"{folder}/memory.limit_in_bytes", f"{folder}/memory.oom_control"
    used = _number(usage)
    inactive = parse_keyed(_read(f"{folder}/memory.stat")).get(inactive_key)
    working_set = max(0, used - inactive) if used is not None and inactive is not None else None
    return used, working_set, parse_limit(_read(limit)), parse_keyed(_read(kills)).get("oom_kill")


def _io(files: _Files) -> tuple[int | None, int | None]:
    if not files.io:
        return None, None
    if files.unified_io:
        return parse_io_stat(_read(f"{files.io}/io.stat"))
    # With a group below the container's, its own file tells nothing of that one.
    text = _read(f"{files.io}/blkio.throttle.io_service_bytes_recursive")
    return parse_blkio(text or _read(f"{files.io}/blkio.throttle.io_service_bytes"))


def _number(path: str) -> int | None:
    value = _read(path).strip()
    return int(value) if value.isdecimal() else None


def _namespace(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _READ_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
