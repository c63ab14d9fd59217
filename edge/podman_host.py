"""What Podman must be told on this host, decided from facts: cgroups, OCI runtime, resource limits.

Facts are read once by `read_facts`; the decisions are pure, so that tests and benchmarks take them too.
"""

import os
import re
import resource
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge.errors import EngineError

_PODMAN_NOFILE = 1_048_576
_NPROC_THAT_KERNELS_GRANT = 30_000
"""Hosts without CAP_SYS_RESOURCE refused more than about 32768 although their hard limit was higher."""
_CAP_SYS_RESOURCE = 24  # linux/capability.h


class CgroupMode(StrEnum):
    """How the host mounts control groups, in systemd's words."""

    UNIFIED = "unified"
    HYBRID = "hybrid"
    LEGACY = "legacy"


@dataclass(frozen=True, slots=True)
class PodmanHostFacts:
    """What was found.

    Attributes:
        cgroup_mode: How control groups are mounted.
        memory_controller: The kernel can limit memory; off by default on Raspberry Pi OS.
        systemd: systemd is the host's init.
        crun: Its path, empty when not installed.
        runc: Its path, empty when not installed.
        may_raise_limits: CAP_SYS_RESOURCE is there.
        nofile_hard: This process's hard limit of open files.
        nproc_hard: This process's hard limit of processes.
    """

    cgroup_mode: CgroupMode
    memory_controller: bool
    systemd: bool
    crun: str
    runc: str
    may_raise_limits: bool
    nofile_hard: int
    nproc_hard: int


def choose_podman_flags(facts: PodmanHostFacts) -> tuple[str, ...]:
    """Return the global flags `podman` needs here; nothing on a host it was made for.

    Raises:
        EngineError: No installed OCI runtime works with the host's control groups.
    """
    manager = () if facts.systemd else ("--cgroup-manager", "cgroupfs")
    return (*manager, *_runtime_flags(facts))


def _runtime_flags(facts: PodmanHostFacts) -> tuple[str, ...]:
    crun_works = bool(facts.crun) and facts.cgroup_mode is not CgroupMode.HYBRID
    if crun_works:
        return ()
    if facts.runc:
        return ("--runtime", facts.runc)
    if facts.crun:
        raise EngineError(
            "crun does not run with cgroups in hybrid mode, and runc is not installed",
            hint="Install runc (apt install runc), or boot with systemd.unified_cgroup_hierarchy=1.",
        )
    raise EngineError("neither crun nor runc is installed", hint="Install one: apt install crun")


def choose_ulimits(facts: PodmanHostFacts) -> tuple[tuple[str, int], ...]:
    """Return `(name, soft and hard)` a container must be created with, or its start fails; empty where all goes.

    Podman asks for 1048576 of both by default, and a host without CAP_SYS_RESOURCE cannot go above its hard limits.
    """
    if facts.may_raise_limits:
        return ()
    return (
        ("nofile", _lower(facts.nofile_hard, _PODMAN_NOFILE)),
        ("nproc", _lower(facts.nproc_hard, _NPROC_THAT_KERNELS_GRANT)),
    )


def _lower(hard: int, most: int) -> int:
    return most if hard == resource.RLIM_INFINITY else min(hard, most)


def read_facts() -> PodmanHostFacts:
    """Look at this host."""
    mode = cgroup_mode(Path("/proc/self/mounts").read_text(encoding="utf-8"))
    return PodmanHostFacts(
        cgroup_mode=mode,
        memory_controller=_has_memory_controller(mode),
        systemd=Path("/run/systemd/system").is_dir(),
        crun=shutil.which("crun", path=_path()) or "",
        runc=shutil.which("runc", path=_path()) or "",
        may_raise_limits=_has_capability(_CAP_SYS_RESOURCE),
        nofile_hard=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        nproc_hard=resource.getrlimit(resource.RLIMIT_NPROC)[1],
    )


def cgroup_mode(mounts: str) -> CgroupMode:
    """Tell the mode from the text of `/proc/self/mounts`."""
    rows = [line.split() for line in mounts.splitlines()]
    kinds = {row[2] for row in rows if len(row) > 2 and row[1].startswith("/sys/fs/cgroup")}  # noqa: PLR2004
    if "cgroup" not in kinds:
        return CgroupMode.UNIFIED
    return CgroupMode.HYBRID if "cgroup2" in kinds else CgroupMode.LEGACY


def v1_memory_controller(cgroups: str) -> bool:
    """Tell from the text of `/proc/cgroups`, which need not list v2's controllers, whether memory is on."""
    return re.search(r"^memory\s+\d+\s+\d+\s+1$", cgroups, re.MULTILINE) is not None


def _has_memory_controller(mode: CgroupMode) -> bool:
    if mode is CgroupMode.UNIFIED:
        return "memory" in Path("/sys/fs/cgroup/cgroup.controllers").read_text(encoding="ascii").split()
    return v1_memory_controller(Path("/proc/cgroups").read_text(encoding="ascii"))


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    effective = re.search(r"^CapEff:\s+([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> number & 1)


def _path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
