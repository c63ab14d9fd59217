"""What a container engine is told about one container: every decision taken, nothing left to its defaults.

A `ContainerSpec` is made from a task definition by `edge.model.container_spec_builder` and rendered into Podman's
SpecGenerator by `edge.agent.adapters.podman`. Sizes are bytes, times seconds, unless a name says otherwise.
"""

from dataclasses import dataclass, field

LABEL_TASK_ID = "edge.task-id"
LABEL_CONTAINER = "edge.container-name"
LABEL_DEFINITION_DIGEST = "edge.definition-digest"
LABEL_DEVICE = "edge.device"
"""Value: `<cluster>/<device>`. All containers of an agent carry it, so that two agents on one host keep apart."""
LABEL_DEFINITION = "edge.task-definition"
"""Value: `family:revision`; of containers of tasks with a role."""
LABEL_ROLE = "edge.task-role"
LABEL_SECRETS = "edge.secrets"
"""Value: the names of the variables whose values are secrets, with commas between them."""
TELEMETRY_FOLDER = "/run/edge"
TELEMETRY_SOCKET_NAME = "telemetry.sock"
"""Where a container finds the socket for its readings. The folder is mounted, so that a new socket is seen in it."""


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One published port; `host_port` is always decided here, never by the engine."""

    container_port: int
    host_port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class Mount:
    """A host path, a named volume or a tmpfs inside the container.

    Attributes:
        kind: `bind`, `volume` or `tmpfs`.
        source: Host path or volume name; empty for tmpfs.
        options: Mount options as Podman takes them (`size=64m` for tmpfs).
    """

    kind: str
    source: str
    target: str
    read_only: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Device:
    """A host device; `permissions` is a subset of `rwm`."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Ulimit:
    """`name` as `ulimit` has it without `RLIMIT_`, in lower case; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where a container's output goes.

    Attributes:
        driver: `json-file`, `journald` or `none`.
        max_bytes: Total size kept on disk; None for the engine's default. Only for `json-file`.
        tag: journald's tag.
        path: The file to write; empty for the engine's own place. Only for `json-file`.
    """

    driver: str = "json-file"
    max_bytes: int | None = None
    tag: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A named volume of the engine."""

    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container.

    Attributes:
        image_id: Config digest in hexadecimal; never a tag.
        command: None keeps the image's; an empty tuple is an empty command.
        secrets: `(variable, file)` pairs: the value stands in that file, in memory, while the container starts.
        network_mode: `bridge`, `host` or `none`.
        cpu_shares: As ECS: 1024 is one vCPU; at least 2.
        memory_bytes: Hard limit, or None.
        no_new_privileges: Set-user-id files have no effect.
        pids_limit: The most processes and threads; 0 for the engine's own.
        capabilities: The full list without `CAP_`, so that a task behaves the same on every Podman version.
        volumes_from: `(runtime_id, read_only)` pairs.
        cgroup_parent: Where the task's limits are; empty for the engine's own place.
        stop_timeout: Seconds between the stop signal and the kill.
    """

    name: str
    image_id: str
    labels: tuple[tuple[str, str], ...]
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()
    user: str = ""
    network_mode: str = "bridge"
    hostname: str = ""
    extra_hosts: tuple[tuple[str, str], ...] = ()
    dns_servers: tuple[str, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[tuple[str, bool], ...] = ()
    read_only_root: bool = False
    privileged: bool = False
    no_new_privileges: bool = True
    pids_limit: int = 0
    init: bool = False
    capabilities: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    shm_bytes: int | None = None
    cpu_shares: int = 2
    memory_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    stop_timeout: int = 30
    log: LogSettings = field(default_factory=LogSettings)
    cgroup_parent: str = ""
