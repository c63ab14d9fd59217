"""What must hold between the fields of a task definition, as ECS and its agent hold it for external instances."""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from edge.model.secrets import SECRET_ARN, secret_named
from edge.model.sizes import parse_size

if TYPE_CHECKING:
    from edge.model.task_definition import ContainerDefinition, TaskDefinition

RESERVED_PORTS: Final = frozenset({22, 2375, 2376, 51678, 51679, 51680})
"""Ports the ECS agent reserves; a task that took 22 would lock the owner out."""
LOG_OPTIONS: Final = {
    "json-file": frozenset({"max-size", "max-file"}),
    "awslogs": frozenset(
        {
            "awslogs-group",
            "awslogs-stream-prefix",
            "awslogs-region",
            "awslogs-create-group",
            "mode",
            "max-buffer-size",
        }
    ),
    "journald": frozenset({"tag"}),
    "none": frozenset[str](),
}
CAPABILITIES: Final = frozenset(
    {
        "AUDIT_CONTROL",
        "AUDIT_READ",
        "AUDIT_WRITE",
        "BLOCK_SUSPEND",
        "BPF",
        "CHECKPOINT_RESTORE",
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "IPC_OWNER",
        "KILL",
        "LEASE",
        "LINUX_IMMUTABLE",
        "MAC_ADMIN",
        "MAC_OVERRIDE",
        "MKNOD",
        "NET_ADMIN",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_RAW",
        "PERFMON",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYSLOG",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_CHROOT",
        "SYS_MODULE",
        "SYS_NICE",
        "SYS_PACCT",
        "SYS_PTRACE",
        "SYS_RAWIO",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "WAKE_ALARM",
    }
)
"""capabilities(7)."""
Problem = tuple[str, str]


def check_definition(definition: "TaskDefinition") -> Iterator[Problem]:
    """Yield `(path, message)` for everything that contradicts something else."""
    containers = definition.container_definitions
    if definition.requires_compatibilities and not {"EXTERNAL", "EC2"} & set(definition.requires_compatibilities):
        wanted = ", ".join(definition.requires_compatibilities)
        yield "requiresCompatibilities", f"the task asks for {wanted}; a device is EXTERNAL"
    if not any(container.essential for container in containers):
        yield "containerDefinitions", "at least one container must be essential"
    for name, count in Counter(container.name for container in containers).items():
        if count > 1:
            yield "containerDefinitions", f"{count} containers are named {name}"
    if definition.task_role_arn and definition.network_mode == "host":
        yield (
            "taskRoleArn",
            "with networkMode host a task has no network of its own, in which only it could ask who it is",
        )
    yield from _check_memory(definition)
    yield from _check_volumes(definition)
    yield from _check_ports(definition)
    for index, container in enumerate(containers):
        for path, message in _check_container(definition, container):
            yield f"containerDefinitions[{index}].{path}", message
    yield from _check_volumes_from(definition)
    yield from _check_dependencies(definition)


def _check_memory(definition: "TaskDefinition") -> Iterator[Problem]:
    total = 0
    for index, container in enumerate(definition.container_definitions):
        path = f"containerDefinitions[{index}]"
        if definition.memory is None and container.memory is None and container.memory_reservation is None:
            yield f"{path}.memory", "say memory or memoryReservation here, or memory for the task"
        if container.memory and container.memory_reservation and container.memory_reservation > container.memory:
            yield f"{path}.memoryReservation", f"it is more than memory ({container.memory} MiB)"
        if container.memory and definition.memory and container.memory > definition.memory:
            yield f"{path}.memory", f"it is more than the task's memory ({definition.memory} MiB)"
        total += container.memory_reservation or container.memory or 0
    if definition.memory is not None and total > definition.memory:
        yield "memory", f"the containers reserve {total} MiB, the task has {definition.memory}"


def _check_volumes(definition: "TaskDefinition") -> Iterator[Problem]:
    for name, count in Counter(volume.name for volume in definition.volumes).items():
        if count > 1:
            yield "volumes", f"{count} volumes are named {name}"
    for index, volume in enumerate(definition.volumes):
        docker = volume.docker_volume_configuration
        if volume.host is not None and docker is not None:
            yield f"volumes[{index}]", "host and dockerVolumeConfiguration exclude each other"
        if docker is not None and docker.autoprovision and docker.scope == "task":
            yield f"volumes[{index}].dockerVolumeConfiguration.autoprovision", 'it needs scope "shared"'


def _check_ports(definition: "TaskDefinition") -> Iterator[Problem]:
    taken: dict[tuple[str, int], str] = {}
    for index, container in enumerate(definition.container_definitions):
        inside: set[tuple[str, int]] = set()
        for number, mapping in enumerate(container.port_mappings):
            path = f"containerDefinitions[{index}].portMappings[{number}]"
            if (mapping.protocol, mapping.container_port) in inside:
                yield f"{path}.containerPort", f"{mapping.container_port}/{mapping.protocol} is mapped twice"
            inside.add((mapping.protocol, mapping.container_port))
            host_port = mapping.host_port
            if definition.network_mode == "host":
                if host_port not in (0, mapping.container_port):
                    yield f"{path}.hostPort", "in host mode it is the containerPort, or left out"
                host_port = mapping.container_port
            if host_port in RESERVED_PORTS and mapping.protocol == "tcp":
                yield f"{path}.hostPort", f"{host_port} is reserved on a container instance"
            if host_port and (mapping.protocol, host_port) in taken:
                yield f"{path}.hostPort", f"{host_port}/{mapping.protocol} is {taken[mapping.protocol, host_port]}'s"
            taken[mapping.protocol, host_port] = container.name


def _check_container(definition: "TaskDefinition", container: "ContainerDefinition") -> Iterator[Problem]:
    if definition.network_mode == "none" and container.port_mappings:
        yield "portMappings", 'with networkMode "none" there is no port to publish'
    if definition.network_mode == "host":
        for name in ("hostname", "extra_hosts", "dns_servers"):
            if getattr(container, name):
                camel = {"hostname": "hostname", "extra_hosts": "extraHosts", "dns_servers": "dnsServers"}[name]
                yield camel, "with networkMode host the host's own is used"
    volumes = {volume.name for volume in definition.volumes}
    targets: set[str] = set()
    for number, mount in enumerate(container.mount_points):
        if mount.source_volume not in volumes:
            yield f"mountPoints[{number}].sourceVolume", f"the task has no volume {mount.source_volume}"
        if mount.container_path in targets:
            yield f"mountPoints[{number}].containerPath", f"{mount.container_path} is mounted twice"
        targets.add(mount.container_path)
    for number, limit in enumerate(container.ulimits):
        soft, hard = limit.soft_limit, limit.hard_limit
        if hard != -1 and (soft == -1 or soft > hard):
            yield f"ulimits[{number}].softLimit", f"it is more than hardLimit ({hard})"
    yield from _check_secrets(container)
    yield from _check_linux(container)
    yield from _check_log(container)


def _check_secrets(container: "ContainerDefinition") -> Iterator[Problem]:
    taken = {pair.name for pair in container.environment}
    for number, secret in enumerate(container.secrets):
        if secret.name in taken:
            yield f"secrets[{number}].name", f"{secret.name} is there already, as a secret or in environment"
        taken.add(secret.name)
        if secret_named(secret.value_from) is None:
            message = (
                f"it is not a secret of the fleet: write the name that `edge secret set` gave it, or {SECRET_ARN}NAME"
            )
            yield f"secrets[{number}].valueFrom", message


def _check_linux(container: "ContainerDefinition") -> Iterator[Problem]:
    if container.linux_parameters is None or container.linux_parameters.capabilities is None:
        return
    capabilities = container.linux_parameters.capabilities
    for kind, names in (("add", capabilities.add), ("drop", capabilities.drop)):
        for number, name in enumerate(names):
            if name != "ALL" and name not in CAPABILITIES:
                path = f"linuxParameters.capabilities.{kind}[{number}]"
                yield path, f"{name[:40]!r} is no capability (without CAP_, in capitals)"


def _check_log(container: "ContainerDefinition") -> Iterator[Problem]:
    if container.log_configuration is None:
        return
    driver, options = container.log_configuration.log_driver, container.log_configuration.options
    for name, value in options.items():
        path = f"logConfiguration.options.{name[:64]}"
        if name not in LOG_OPTIONS[driver]:
            known = ", ".join(sorted(LOG_OPTIONS[driver])) or "none"
            yield path, f"{driver} has no such option; it has: {known}"
        elif name in ("max-size", "max-buffer-size") and parse_size(value) is None:
            yield path, f'{value[:40]!r} is not a size such as "10m"'
        elif name == "max-file" and not (value.isdecimal() and 1 <= int(value[:9]) <= 1000):  # noqa: PLR2004
            yield path, f"{value[:40]!r} is not a number from 1 to 1000"
    if options.get("mode", "non-blocking") != "non-blocking":
        yield "logConfiguration.options.mode", "a log never holds up its container here: non-blocking, or leave it out"
    if driver == "awslogs" and not options.get("awslogs-group"):
        yield "logConfiguration.options.awslogs-group", "awslogs needs it, as with ECS"
    if "max-file" in options and "max-size" not in options:
        yield "logConfiguration.options.max-file", "it needs max-size"


def _check_volumes_from(definition: "TaskDefinition") -> Iterator[Problem]:
    sources = {c.name: [source.source_container for source in c.volumes_from] for c in definition.container_definitions}
    for index, container in enumerate(definition.container_definitions):
        for number, name in enumerate(sources[container.name]):
            path = f"containerDefinitions[{index}].volumesFrom[{number}].sourceContainer"
            if name not in sources:
                yield path, f"the task has no container {name}"
            elif _reaches(sources, name, container.name):
                yield path, f"{container.name} and {name} wait for each other"


def _check_dependencies(definition: "TaskDefinition") -> Iterator[Problem]:
    """As the ECS agent: a container that must end cannot be essential, one that must be healthy needs a check."""
    containers = {container.name: container for container in definition.container_definitions}
    sources = {c.name: [one.container_name for one in c.depends_on] for c in definition.container_definitions}
    for index, container in enumerate(definition.container_definitions):
        for number, one in enumerate(container.depends_on):
            path = f"containerDefinitions[{index}].dependsOn[{number}]"
            target = containers.get(one.container_name)
            if target is None:
                yield f"{path}.containerName", f"the task has no container {one.container_name}"
            elif _reaches(sources, one.container_name, container.name):
                yield f"{path}.containerName", f"{container.name} and {one.container_name} wait for each other"
            elif one.condition in ("COMPLETE", "SUCCESS") and target.essential:
                message = f"{one.container_name} is essential: the task would end with it; set essential to false"
                yield f"{path}.condition", message
            elif one.condition == "HEALTHY" and target.health_check is None:
                yield f"{path}.condition", f"{one.container_name} has no healthCheck"
        check = container.health_check
        if check is not None and (check.command[0] not in ("CMD", "CMD-SHELL") or len(check.command) < 2):  # noqa: PLR2004
            message = 'write ["CMD", program, argument, …] or ["CMD-SHELL", line]'
            yield f"containerDefinitions[{index}].healthCheck.command", message


def _reaches(sources: dict[str, list[str]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            waiting.extend(sources.get(name, []))
    return False
