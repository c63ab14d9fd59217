"""ECS's task definition JSON: read strictly, judged whole, kept in one normalized form.

Accepted are the input of `aws ecs register-task-definition` and the output of `describe-task-definition`. Everything
wrong is told at once, with paths in the document's own words.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError

from edge.errors import InvalidInputError
from edge.model import task_definition_fields as fields
from edge.model.identifiers import FAMILY_PATTERN
from edge.model.secrets import VARIABLE_PATTERN
from edge.model.task_definition_life import Dependency, HealthCheck, Part, RestartPolicy
from edge.model.task_definition_rules import check_definition

MAXIMUM_CONTAINERS: Final = 10
"""ECS's quota for one task definition."""
MAXIMUM_PROBLEMS: Final = 50
MEGABYTE: Final = 1024 * 1024
DEFAULT_STOP_TIMEOUT: Final = 30
"""Seconds; the ECS agent's `ECS_CONTAINER_STOP_TIMEOUT`."""
_OCI_ARCHITECTURE: Final = {"X86_64": "amd64", "ARM64": "arm64"}


def _task_cpu(value: object) -> object:
    return _with_unit(value, r"vcpu", 1024)


def _task_memory(value: object) -> object:
    return _with_unit(value, r"gb", 1024)


def _with_unit(value: object, unit: str, factor: int) -> object:
    """ECS takes `"512"`, `512`, and `".5 vCPU"` or `"1 GB"`."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(rf"\s*(\d*\.?\d+)\s*({unit})?\s*", value[:32], re.IGNORECASE)
    if match is None:
        return value
    number = float(match[1]) * (factor if match[2] else 1)
    return int(number) if number == int(number) else value


ROLE_PATTERN: Final = r"^(arn:[A-Za-z0-9:_-]{1,200}:role/(?:[A-Za-z0-9+=,.@_-]{1,64}/){0,4})?[A-Za-z0-9+=,.@_-]{1,64}$"
"""A name, or an ARN, as IAM has them."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,255}$")]
Text = Annotated[str, Field(max_length=32 * 1024)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\x00]*$", max_length=4096)]
Mebibytes = Annotated[int, Field(ge=1, le=2**31, strict=True)]


class KeyValue(Part):
    """One environment variable."""

    name: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^=\x00]+$")]
    value: Text = ""


class SecretDefinition(Part):
    """An environment variable whose value is a secret of the fleet's."""

    name: Annotated[str, Field(pattern=VARIABLE_PATTERN)]
    value_from: Annotated[str, Field(min_length=1, max_length=2048)]


class PortMappingDefinition(Part):
    """A published port; `host_port` 0 is chosen by the agent."""

    container_port: Port
    host_port: Annotated[int, Field(ge=0, le=65535, strict=True)] = 0
    protocol: Literal["tcp", "udp"] = "tcp"


class MountPoint(Part):
    """A volume of the task inside the container."""

    source_volume: Name
    container_path: AbsolutePath
    read_only: bool = False


class VolumeFrom(Part):
    """All mounts of another container of the task."""

    source_container: Name
    read_only: bool = False


class ExtraHost(Part):
    """A line of `/etc/hosts`."""

    hostname: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s:]+$")]
    ip_address: Annotated[str, Field(min_length=2, max_length=64, pattern=r"^[0-9A-Fa-f.:]+$")]


class UlimitDefinition(Part):
    """A resource limit; -1 is unlimited."""

    name: Literal[
        "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
        "rttime", "sigpending", "stack",
    ]  # fmt: skip
    soft_limit: Annotated[int, Field(ge=-1, lt=2**63, strict=True)]
    hard_limit: Annotated[int, Field(ge=-1, lt=2**63, strict=True)]


class Capabilities(Part):
    """Kernel capabilities without `CAP_`; `ALL` is all of them."""

    add: Annotated[list[str], Field(max_length=64)] = Field(default_factory=list)
    drop: Annotated[list[str], Field(max_length=64)] = Field(default_factory=list)


class DeviceDefinition(Part):
    """A device of the host."""

    host_path: AbsolutePath
    container_path: AbsolutePath | None = None
    permissions: Annotated[list[Literal["read", "write", "mknod"]], Field(max_length=3)] = Field(default_factory=list)


class Tmpfs(Part):
    """A file system in memory; `size` in MiB."""

    container_path: AbsolutePath
    size: Mebibytes
    mount_options: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=32)] = Field(
        default_factory=list
    )


class LinuxParameters(Part):
    """Linux's own; `shared_memory_size` in MiB."""

    capabilities: Capabilities | None = None
    devices: Annotated[list[DeviceDefinition], Field(max_length=64)] = Field(default_factory=list)
    init_process_enabled: bool = False
    shared_memory_size: Mebibytes | None = None
    tmpfs: Annotated[list[Tmpfs], Field(max_length=32)] = Field(default_factory=list)


class LogConfiguration(Part):
    """Where a container's output goes."""

    log_driver: Literal["json-file", "awslogs", "journald", "none"]
    options: dict[str, str] = Field(default_factory=dict)


class ContainerDefinition(Part):
    """One container; sizes in MiB, times in seconds, `cpu` in units of 1/1024 of a core."""

    name: Name
    image: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^\S+$")]
    essential: bool = True
    command: Annotated[list[Text], Field(max_length=1024)] | None = None
    entry_point: Annotated[list[Text], Field(max_length=1024)] | None = None
    working_directory: Annotated[str, Field(max_length=4096)] = ""
    environment: Annotated[list[KeyValue], Field(max_length=1024)] = Field(default_factory=list)
    secrets: Annotated[list[SecretDefinition], Field(max_length=64)] = Field(default_factory=list)
    user: Annotated[str, Field(max_length=255, pattern=r"^[^\s\x00]*$")] = ""
    cpu: Annotated[int, Field(ge=0, le=262144, strict=True)] = 0
    memory: Annotated[int, Field(ge=6, le=2**31, strict=True)] | None = None
    memory_reservation: Annotated[int, Field(ge=6, le=2**31, strict=True)] | None = None
    port_mappings: Annotated[list[PortMappingDefinition], Field(max_length=100)] = Field(default_factory=list)
    mount_points: Annotated[list[MountPoint], Field(max_length=100)] = Field(default_factory=list)
    volumes_from: Annotated[list[VolumeFrom], Field(max_length=MAXIMUM_CONTAINERS)] = Field(default_factory=list)
    readonly_root_filesystem: bool = False
    hostname: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9.-]*$")] = ""
    extra_hosts: Annotated[list[ExtraHost], Field(max_length=100)] = Field(default_factory=list)
    dns_servers: Annotated[list[Annotated[str, Field(pattern=r"^[0-9A-Fa-f.:]{2,64}$")]], Field(max_length=16)] = Field(
        default_factory=list
    )
    docker_labels: Annotated[dict[str, Text], Field(max_length=256)] = Field(default_factory=dict)
    ulimits: Annotated[list[UlimitDefinition], Field(max_length=16)] = Field(default_factory=list)
    linux_parameters: LinuxParameters | None = None
    privileged: bool = False
    docker_security_options: list[Literal["no-new-privileges", "no-new-privileges:true", "no-new-privileges:false"]] = (
        Field(default_factory=list, max_length=1)
    )
    stop_timeout: Annotated[int, Field(ge=2, le=3600, strict=True)] = DEFAULT_STOP_TIMEOUT
    log_configuration: LogConfiguration | None = None
    health_check: HealthCheck | None = None
    depends_on: Annotated[list[Dependency], Field(max_length=MAXIMUM_CONTAINERS)] = Field(default_factory=list)
    start_timeout: Annotated[int, Field(ge=2, le=3600, strict=True)] | None = None
    restart_policy: RestartPolicy | None = None


class HostVolume(Part):
    """A folder of the host; without a path the agent makes one that lives as long as the task."""

    source_path: AbsolutePath | None = None


class DockerVolume(Part):
    """A named volume: `task` lives as long as the task, `shared` until somebody removes it."""

    scope: Literal["task", "shared"] = "task"
    autoprovision: bool = False
    driver: Literal["local"] = "local"
    driver_opts: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    labels: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)


class Volume(Part):
    """A volume of the task."""

    name: Name
    host: HostVolume | None = None
    docker_volume_configuration: DockerVolume | None = None


class RuntimePlatform(Part):
    """What the images are for."""

    cpu_architecture: Literal["X86_64", "ARM64"] | None = None
    operating_system_family: Literal["LINUX"] | None = None


class TaskDefinition(Part):
    """A task definition that was found good; `cpu` in units of 1/1024 of a core, `memory` in MiB."""

    family: Annotated[str, Field(pattern=FAMILY_PATTERN)]
    task_role_arn: Annotated[str, Field(pattern=ROLE_PATTERN)] = ""
    network_mode: Literal["bridge", "host", "none"] = "bridge"
    requires_compatibilities: list[Literal["EC2", "EXTERNAL", "FARGATE", "MANAGED_INSTANCES"]] = Field(
        default_factory=list
    )
    runtime_platform: RuntimePlatform | None = None
    cpu: Annotated[int, BeforeValidator(_task_cpu), Field(ge=128, le=10 * 1024, strict=True)] | None = None
    memory: Annotated[int, BeforeValidator(_task_memory), Field(ge=6, le=2**31, strict=True)] | None = None
    container_definitions: Annotated[list[ContainerDefinition], Field(min_length=1, max_length=MAXIMUM_CONTAINERS)]
    volumes: Annotated[list[Volume], Field(max_length=100)] = Field(default_factory=list)

    def container(self, name: str) -> ContainerDefinition:
        """Return the container of that name.

        Raises:
            KeyError: There is none.
        """
        for container in self.container_definitions:
            if container.name == name:
                return container
        raise KeyError(name)

    @property
    def oci_architecture(self) -> str:
        """The architecture the task asks for as OCI names it, or empty when any will do."""
        wanted = self.runtime_platform.cpu_architecture if self.runtime_platform else None
        return _OCI_ARCHITECTURE[wanted] if wanted else ""

    def to_wire(self) -> dict[str, Any]:
        """Return the normalized ECS JSON: what was said, without what is left at its default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def parse_task_definition(document: Mapping[str, Any]) -> TaskDefinition:
    """Read and judge a task definition.

    Raises:
        InvalidInputError: Something is wrong; `problems` says everything that is.
    """
    problems: fields.Problems = []
    chosen = _select(_unwrap(document), problems)
    definition = None
    try:
        definition = TaskDefinition.model_validate(chosen)
    except ValidationError as error:
        problems.extend(_told(error))
    if definition is not None:
        problems.extend(check_definition(definition))
    if problems or definition is None:
        family = document.get("family")
        name = f" {family[:80]!r}" if isinstance(family, str) else ""
        count = f"{len(problems)} problem" + "s" * (len(problems) != 1)
        raise InvalidInputError(
            f"the task definition{name} has {count}: {problems[0][0]}: {problems[0][1]}",
            problems=tuple(problems[:MAXIMUM_PROBLEMS]),
        )
    return definition


def definition_digest(definition: TaskDefinition) -> str:
    """Return the SHA-256, in hexadecimal, of the definition's normalized form."""
    canonical = json.dumps(definition.to_wire(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _unwrap(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """`describe-task-definition` puts the definition into `taskDefinition`, with `tags` beside it."""
    inner = document.get("taskDefinition")
    return inner if isinstance(inner, Mapping) and not document.keys() - {"taskDefinition", "tags"} else document


def _select(document: Mapping[str, Any], problems: fields.Problems) -> dict[str, Any]:
    task = fields.select(
        document, "", problems, read=fields.TASK_READ, refused=fields.TASK_REFUSED, tolerated=fields.TASK_TOLERATED
    )
    if task.get("networkMode") == "awsvpc":
        # ECS's own words for it, so that a search finds them.
        problems.append(("networkMode", "The awsvpc network mode is not supported on external instances; use bridge"))
        task["networkMode"] = "bridge"
    _replace_each(task, "containerDefinitions", "", problems, _select_container)
    _replace_each(task, "volumes", "", problems, _select_volume)
    if isinstance(task.get("runtimePlatform"), Mapping):
        task["runtimePlatform"] = fields.select(
            task["runtimePlatform"], "runtimePlatform", problems, read=fields.RUNTIME_READ
        )
    return task


def _select_container(document: Mapping[str, Any], path: str, problems: fields.Problems) -> dict[str, Any]:
    container = fields.select(document, path, problems, read=fields.CONTAINER_READ, refused=fields.CONTAINER_REFUSED)
    _replace_each(container, "portMappings", path, problems, _select_port)
    for name, read, refused in (
        ("linuxParameters", fields.LINUX_READ, fields.LINUX_REFUSED),
        ("logConfiguration", fields.LOG_READ, fields.LOG_REFUSED),
    ):
        if isinstance(container.get(name), Mapping):
            container[name] = fields.select(container[name], f"{path}.{name}", problems, read=read, refused=refused)
    return container


def _select_port(document: Mapping[str, Any], path: str, problems: fields.Problems) -> dict[str, Any]:
    return fields.select(
        document, path, problems, read=fields.PORT_READ, refused=fields.PORT_REFUSED, tolerated=fields.PORT_TOLERATED
    )


def _select_volume(document: Mapping[str, Any], path: str, problems: fields.Problems) -> dict[str, Any]:
    return fields.select(document, path, problems, read=fields.VOLUME_READ, refused=fields.VOLUME_REFUSED)


def _replace_each(
    holder: dict[str, Any],
    name: str,
    path: str,
    problems: fields.Problems,
    selector: Any,
) -> None:
    """Select in each object of a list; what is no object stays for the model to refuse."""
    items = holder.get(name)
    if isinstance(items, list):
        holder[name] = [
            selector(item, f"{path}.{name}[{index}]".lstrip("."), problems) if isinstance(item, Mapping) else item
            for index, item in enumerate(items[:1024])
        ]


def _told(error: ValidationError) -> Iterator[tuple[str, str]]:
    for problem in error.errors(include_url=False, include_input=False):
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
        yield "".join(parts).lstrip("."), problem["msg"]
