"""What a doctor looks at, as values; `reading` fills them, `judging` judges them."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edge.podman_host import CgroupMode


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """The kernel, and what the host gives it.

    Attributes:
        release: As `uname -r` says it.
        cmdline_file: A Raspberry Pi's `cmdline.txt`; None on other machines.
        filesystems: Names in `/proc/filesystems`.
        fuse_device: `/dev/fuse` is there.
    """

    release: str
    cgroup_mode: CgroupMode
    memory_controller: bool
    cmdline_file: Path | None
    filesystems: frozenset[str]
    fuse_device: bool
    systemd: bool


@dataclass(frozen=True, slots=True)
class PodmanFacts:
    """Podman.

    Attributes:
        version: Of the program; empty when it is not installed.
        runtimes: Of crun and runc, those that are installed.
        problem: Why its service does not answer on the agent's socket; empty when it does.
        image_stores: The additional stores it reads, of `/etc/containers/storage.conf`.
        driver: Of its store, there; empty for its own choice.
    """

    version: str
    runtimes: tuple[str, ...]
    problem: str
    image_stores: tuple[str, ...]
    driver: str


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """A file system, and the card or disk below it.

    Attributes:
        where: What it is for.
        size, free: Bytes.
        inodes_free: Share of 1 that is free; None where it has no such count.
        read_only: Mounted so, or made so by the kernel after an error.
    """

    where: str
    path: Path
    size: int
    free: int
    inodes_free: float | None
    read_only: bool


@dataclass(frozen=True, slots=True)
class WearFacts:
    """How worn the storage is.

    Attributes:
        life_tenths: An eMMC's used life, 1 to 10, 11 beyond it; None where it does not tell (SD cards do not).
        reserve: Its spare blocks: 1 normal, 2 over 80 % used, 3 over 90 %.
        filesystem_errors: What ext4 counted, for each device that has any.
    """

    life_tenths: int | None = None
    reserve: int | None = None
    filesystem_errors: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class IdentityFacts:
    """The device in its fleet.

    Attributes:
        config_problem: Why `agent.toml` is none an agent would start with; empty when it is one.
        enrolled: There is an `agent.toml`.
        broker: `host:port`.
        broker_problem: Why the broker cannot be reached with this device's certificate; empty when it can.
        valid_from, valid_until: The certificate's; None without one.
    """

    enrolled: bool
    config_problem: str
    broker: str = ""
    broker_problem: str = ""
    valid_from: datetime | None = None
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Our programs.

    Attributes:
        agent_running: Somebody works on the state directory.
        agent_link: Why the agent has no broker, in its own words; empty when it has, or does not run.
        images_problem: Why the image service does not answer; empty when it does.
        store: Where it keeps what Podman reads.
        store_mounted: Its mount is there.
        image_problems: Of each image that cannot be completed, name and why.
    """

    agent_running: bool = False
    agent_link: str = ""
    images_problem: str = ""
    store: str = ""
    store_mounted: bool = False
    image_problems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Everything."""

    now: datetime
    clock_synchronized: bool
    kernel: KernelFacts
    podman: PodmanFacts
    identity: IdentityFacts
    disks: tuple[DiskFacts, ...] = ()
    wear: WearFacts = field(default_factory=WearFacts)
    services: ServiceFacts = field(default_factory=ServiceFacts)
