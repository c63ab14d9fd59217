"""From a task definition to what the container engine is told: ECS's meaning of each field, decided here.

Sources: AWS's `RegisterTaskDefinition` reference; the ECS agent for defaults the reference does not state.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from edge.model.container_spec import (
    LABEL_CONTAINER,
    LABEL_DEFINITION,
    LABEL_DEFINITION_DIGEST,
    LABEL_DEVICE,
    LABEL_ROLE,
    LABEL_SECRETS,
    LABEL_TASK_ID,
    TELEMETRY_FOLDER,
    TELEMETRY_SOCKET_NAME,
    ContainerSpec,
    Device,
    LogSettings,
    Mount,
    PortMapping,
    Ulimit,
    VolumeSpec,
)
from edge.model.sizes import parse_size
from edge.model.task_definition import MEGABYTE, ContainerDefinition, LinuxParameters, TaskDefinition, Volume
from edge.model.task_definition_rules import CAPABILITIES

DEFAULT_CAPABILITIES: Final = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
"""Docker's default set, which ECS documents, without AUDIT_WRITE, MKNOD and NET_RAW, as Podman 4 and 5 have it."""
DEFAULT_NOFILE: Final = Ulimit("nofile", 1024, 4096)
"""The ECS agent's default for containers that say nothing."""
MINIMUM_CPU_SHARES: Final = 2
"""The kernel's; ECS turns 0 and 1 into it."""
NEW_PRIVILEGES: Final = "no-new-privileges:false"
"""In `dockerSecurityOptions`, as Docker writes it."""
_PERMISSIONS: Final = {"read": "r", "write": "w", "mknod": "m"}


@dataclass(frozen=True, slots=True)
class SpecContext:
    """What a task definition does not say: where, as whose, with which image and which ports.

    Attributes:
        image_id: Config digest in hexadecimal.
        ports: `(container port, protocol, host port)` as chosen.
        runtime_ids: By container name, for `volumesFrom`.
        cgroup_parent: Where the task's own limits are; empty for none.
        telemetry_folder: Where the socket for its readings is on the host; empty for none.
        log_path: Where its log is to be written; empty for the engine's own place.
        pids_limit: The most processes and threads; 0 for the engine's own.
        secrets: `(variable, file)` pairs, for all of the container's secrets.
        definition_key: `family:revision`.
        identity: Variables by which a task with a role asks who it is.
    """

    cluster: str
    device: str
    task_id: str
    definition_digest: str
    image_id: str
    ports: tuple[tuple[int, str, int], ...] = ()
    runtime_ids: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    telemetry_folder: str = ""
    log_path: str = ""
    pids_limit: int = 0
    secrets: tuple[tuple[str, str], ...] = ()
    definition_key: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)


def container_name_for(task_id: str, definition: TaskDefinition, container: str) -> str:
    """Return the engine's name for a container: readable, at most 128 characters, one for each task and container."""
    return f"edge-{definition.family[:48]}-{container[:48]}-{task_id[:24]}"


def build_container_spec(definition: TaskDefinition, container_name: str, context: SpecContext) -> ContainerSpec:
    """Return everything the engine is told about one container."""
    container = definition.container(container_name)
    linux = container.linux_parameters or LinuxParameters()
    return ContainerSpec(
        name=container_name_for(context.task_id, definition, container_name),
        image_id=context.image_id,
        labels=_labels(definition, container, context),
        command=tuple(container.command) if container.command is not None else None,
        entrypoint=tuple(container.entry_point) if container.entry_point is not None else None,
        working_directory=container.working_directory,
        environment=_environment(container, context),
        secrets=context.secrets,
        user=container.user,
        network_mode=definition.network_mode,
        hostname=container.hostname,
        extra_hosts=tuple((host.hostname, host.ip_address) for host in container.extra_hosts),
        dns_servers=tuple(container.dns_servers),
        ports=_ports(definition, context),
        mounts=(
            *_volume_mounts(definition, container, context.task_id),
            *_tmpfs_mounts(linux),
            *_telemetry_mounts(container, context),
        ),
        volumes_from=tuple((context.runtime_ids[v.source_container], v.read_only) for v in container.volumes_from),
        read_only_root=container.readonly_root_filesystem,
        privileged=container.privileged,
        no_new_privileges=not (container.privileged or asks_for_new_privileges(container)),
        pids_limit=context.pids_limit,
        init=linux.init_process_enabled,
        capabilities=_capabilities(linux),
        devices=tuple(_devices(linux)),
        ulimits=_ulimits(container),
        shm_bytes=linux.shared_memory_size * MEGABYTE if linux.shared_memory_size else None,
        cpu_shares=max(container.cpu, MINIMUM_CPU_SHARES),
        memory_bytes=container.memory * MEGABYTE if container.memory else None,
        memory_reservation_bytes=container.memory_reservation * MEGABYTE if container.memory_reservation else None,
        stop_timeout=container.stop_timeout,
        log=_log(container, context.log_path),
        cgroup_parent=context.cgroup_parent,
    )


def volume_specs(definition: TaskDefinition, task_id: str) -> tuple[VolumeSpec, ...]:
    """Return the engine's volumes the task needs, shared ones among them; host paths are no volumes."""
    specs = []
    for volume in definition.volumes:
        name = _volume_name(volume, task_id)
        if name is None:
            continue
        docker = volume.docker_volume_configuration
        options = tuple(docker.driver_opts.items()) if docker else ()
        labels = tuple(docker.labels.items()) if docker else ()
        own = ((LABEL_TASK_ID, task_id),) if _is_task_scoped(volume) else ()
        specs.append(VolumeSpec(name, options=options, labels=(*labels, *own)))
    return tuple(specs)


def task_volume_names(definition: TaskDefinition, task_id: str) -> tuple[str, ...]:
    """Return the names of the volumes that end with the task."""
    return tuple(
        name
        for volume in definition.volumes
        if _is_task_scoped(volume) and (name := _volume_name(volume, task_id)) is not None
    )


def asks_for_new_privileges(container: ContainerDefinition) -> bool:
    """Say whether set-user-id files shall have their effect in a container."""
    return NEW_PRIVILEGES in container.docker_security_options


def _labels(
    definition: TaskDefinition, container: ContainerDefinition, context: SpecContext
) -> tuple[tuple[str, str], ...]:
    """A definition's labels cannot take the place of ours: by ours a container is found again."""
    labels = {
        **container.docker_labels,
        LABEL_TASK_ID: context.task_id,
        LABEL_CONTAINER: container.name,
        LABEL_DEFINITION_DIGEST: context.definition_digest,
        LABEL_DEVICE: f"{context.cluster}/{context.device}",
    }
    for ours in (LABEL_SECRETS, LABEL_ROLE, LABEL_DEFINITION):
        labels.pop(ours, None)
    if definition.task_role_arn:
        labels |= {LABEL_ROLE: definition.task_role_arn, LABEL_DEFINITION: context.definition_key}
    if context.secrets:
        labels[LABEL_SECRETS] = ",".join(variable for variable, _ in context.secrets)
    return tuple(labels.items())


def _ports(definition: TaskDefinition, context: SpecContext) -> tuple[PortMapping, ...]:
    if definition.network_mode != "bridge":
        return ()
    return tuple(PortMapping(inside, host, protocol) for inside, protocol, host in context.ports)


def _is_task_scoped(volume: Volume) -> bool:
    docker = volume.docker_volume_configuration
    return docker is None or docker.scope == "task"


def _volume_name(volume: Volume, task_id: str) -> str | None:
    """Return the engine's name of a volume, or None for a host path."""
    if volume.host is not None and volume.host.source_path is not None:
        return None
    return f"edge-{task_id[:24]}-{volume.name[:80]}" if _is_task_scoped(volume) else volume.name


def _volume_mounts(definition: TaskDefinition, container: ContainerDefinition, task_id: str) -> Iterator[Mount]:
    volumes = {volume.name: volume for volume in definition.volumes}
    for mount in container.mount_points:
        volume = volumes[mount.source_volume]
        name = _volume_name(volume, task_id)
        if name is None and volume.host is not None:
            yield Mount("bind", volume.host.source_path or "", mount.container_path, mount.read_only)
        else:
            yield Mount("volume", name or "", mount.container_path, mount.read_only)


def _tmpfs_mounts(linux: LinuxParameters) -> Iterator[Mount]:
    for tmpfs in linux.tmpfs:
        yield Mount("tmpfs", "", tmpfs.container_path, options=(f"size={tmpfs.size}m", *tmpfs.mount_options))


def _telemetry_mounts(container: ContainerDefinition, context: SpecContext) -> Iterator[Mount]:
    taken = {mount.container_path.rstrip("/") for mount in container.mount_points}
    if context.telemetry_folder and TELEMETRY_FOLDER not in taken:
        # The socket can be written to all the same: a read-only mount keeps its folder from being changed.
        yield Mount("bind", context.telemetry_folder, TELEMETRY_FOLDER, read_only=True)


def _environment(container: ContainerDefinition, context: SpecContext) -> tuple[tuple[str, str], ...]:
    """What the definition says of a variable of ours is taken: it may lead somewhere else."""
    given = {**context.identity, **{pair.name: pair.value for pair in container.environment}}
    if not any(_telemetry_mounts(container, context)):
        return tuple(given.items())
    socket = f"{TELEMETRY_FOLDER}/{TELEMETRY_SOCKET_NAME}"
    uri = f"http+unix://{quote(socket, safe='')}"
    return tuple({"EDGE_TELEMETRY_URI": uri, "EDGE_TELEMETRY_SOCKET": socket, **given}.items())


def _capabilities(linux: LinuxParameters) -> tuple[str, ...]:
    capabilities = set(DEFAULT_CAPABILITIES)
    if linux.capabilities is not None:
        drop, add = set(linux.capabilities.drop), set(linux.capabilities.add)
        capabilities = (set() if "ALL" in drop else capabilities) | (set(CAPABILITIES) if "ALL" in add else add)
        capabilities -= drop
    return tuple(sorted(capabilities))


def _devices(linux: LinuxParameters) -> Iterator[Device]:
    for device in linux.devices:
        permissions = "".join(_PERMISSIONS[permission] for permission in device.permissions)
        yield Device(device.host_path, device.container_path or device.host_path, permissions or "rwm")


def _ulimits(container: ContainerDefinition) -> tuple[Ulimit, ...]:
    limits = {limit.name: Ulimit(limit.name, limit.soft_limit, limit.hard_limit) for limit in container.ulimits}
    return tuple({"nofile": DEFAULT_NOFILE, **limits}.values())


def _log(container: ContainerDefinition, path: str) -> LogSettings:
    """`max-size` times `max-file` is the total that is kept: Podman keeps one file of that size."""
    configuration = container.log_configuration
    if configuration is None:
        return LogSettings(max_bytes=DEFAULT_LOG_BYTES, path=path)
    if configuration.log_driver == "awslogs":
        # What waits to be shipped waits in the file.
        buffer = parse_size(configuration.options.get("max-buffer-size", "")) or 0
        return LogSettings(max_bytes=max(buffer, DEFAULT_LOG_BYTES), path=path)
    size = parse_size(configuration.options.get("max-size", ""))
    files = int(configuration.options.get("max-file", "1"))
    total = size * files if size else DEFAULT_LOG_BYTES
    driver = configuration.log_driver
    if driver == "json-file":
        return LogSettings(driver, total, path=path)
    return LogSettings(driver, tag=configuration.options.get("tag", ""))


DEFAULT_LOG_BYTES: Final = 10 * MEGABYTE
"""Kept of a container's log when the definition says nothing: an SD card is small, and Docker's default is no limit."""
