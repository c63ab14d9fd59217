"""Every field of ECS's task definition this project knows of, and what it does with it.

Nothing is ignored in silence: a field is read, tolerated because it says nothing about how a task runs, or refused
with the reason. Field names and their meaning: AWS's API reference, `RegisterTaskDefinition` and `TaskDefinition`.
`docs/task-definitions.md` has the same table; a test holds the two together.
"""

import difflib
from collections.abc import Mapping
from typing import Any, Final

Problems = list[tuple[str, str]]

NOT_YET: Final = "this version of edge does not do it yet"
AWS_ONLY: Final = "it is a service of AWS that a device of your own does not have"

TASK_READ: Final = frozenset(
    {
        "family",
        "taskRoleArn",
        "networkMode",
        "requiresCompatibilities",
        "runtimePlatform",
        "cpu",
        "memory",
        "containerDefinitions",
        "volumes",
    }
)
TASK_TOLERATED: Final = frozenset(
    {
        "taskDefinitionArn",
        "revision",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "registeredBy",
        "deregisteredAt",
        "deleteRequestedAt",
        "tags",
        "executionRoleArn",
    }
)
"""What `aws ecs describe-task-definition` adds, and the role of ECS's own agent: nothing of it says how a task runs."""
TASK_REFUSED: Final[Mapping[str, str]] = {
    "pidMode": NOT_YET,
    "ipcMode": NOT_YET,
    "placementConstraints": NOT_YET,
    "proxyConfiguration": "App Mesh is not there on an external instance",
    "inferenceAccelerators": "AWS has retired it",
    "ephemeralStorage": "it belongs to Fargate; use a volume",
    "enableFaultInjection": "an external instance does not have it",
}

CONTAINER_READ: Final = frozenset(
    {
        "name",
        "image",
        "essential",
        "command",
        "entryPoint",
        "workingDirectory",
        "environment",
        "secrets",
        "user",
        "cpu",
        "memory",
        "memoryReservation",
        "portMappings",
        "mountPoints",
        "volumesFrom",
        "readonlyRootFilesystem",
        "hostname",
        "extraHosts",
        "dnsServers",
        "dockerLabels",
        "ulimits",
        "linuxParameters",
        "privileged",
        "dockerSecurityOptions",
        "stopTimeout",
        "logConfiguration",
        "healthCheck",
        "dependsOn",
        "startTimeout",
        "restartPolicy",
    }
)
CONTAINER_REFUSED: Final[Mapping[str, str]] = {
    "environmentFiles": NOT_YET,
    "repositoryCredentials": "log in to the registry on the device (`podman login`)",
    "dnsSearchDomains": NOT_YET,
    "disableNetworking": 'use networkMode "none"',
    "links": "it is legacy; containers of one task reach each other by host ports, or share networkMode host",
    "systemControls": NOT_YET,
    "interactive": NOT_YET,
    "pseudoTerminal": NOT_YET,
    "resourceRequirements": "GPUs and accelerators are not supported",
    "firelensConfiguration": "FireLens is not supported; logs are read with `edge task logs`",
    "credentialSpecs": "it belongs to Windows",
    "versionConsistency": "a task keeps the image its tag meant when it began, always",
}

LINUX_READ: Final = frozenset({"capabilities", "devices", "initProcessEnabled", "sharedMemorySize", "tmpfs"})
LINUX_REFUSED: Final[Mapping[str, str]] = {"maxSwap": NOT_YET, "swappiness": "cgroup v2 does not have it"}

PORT_READ: Final = frozenset({"containerPort", "hostPort", "protocol"})
PORT_REFUSED: Final[Mapping[str, str]] = {"containerPortRange": NOT_YET}
PORT_TOLERATED: Final = frozenset({"name", "appProtocol", "hostPortRange"})
"""Names for Service Connect and a range that AWS computed: they do not change what is published."""

VOLUME_READ: Final = frozenset({"name", "host", "dockerVolumeConfiguration"})
VOLUME_REFUSED: Final[Mapping[str, str]] = {
    "efsVolumeConfiguration": f"{AWS_ONLY}; mount NFS with dockerVolumeConfiguration driverOpts",
    "fsxWindowsFileServerVolumeConfiguration": AWS_ONLY,
    "configuredAtLaunch": f"EBS: {AWS_ONLY}",
    "s3filesVolumeConfiguration": AWS_ONLY,
}

LOG_READ: Final = frozenset({"logDriver", "options"})
LOG_REFUSED: Final[Mapping[str, str]] = {"secretOptions": NOT_YET}
RUNTIME_READ: Final = frozenset({"cpuArchitecture", "operatingSystemFamily"})


def select(  # noqa: PLR0913 - one table each
    document: Mapping[str, Any],
    path: str,
    problems: Problems,
    *,
    read: frozenset[str],
    refused: Mapping[str, str] | None = None,
    tolerated: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the fields that are read; every other one is a problem unless it is empty or says nothing.

    AWS's own tools write out unsupported fields as null, false or an empty list: those are as good as absent.
    """
    refused = refused or {}
    chosen: dict[str, Any] = {}
    for name, value in document.items():
        where = f"{path}.{name}".lstrip(".")
        if name in read:
            if value is not None:
                chosen[name] = value
        elif name in tolerated or (name in refused and not value):
            continue
        elif name in refused:
            problems.append((where, f"{name} is refused: {refused[name]}"))
        else:
            near = difflib.get_close_matches(name, [*read, *refused], n=1)
            problems.append((where, "there is no such field" + (f"; did you mean {near[0]}?" if near else "")))
    return chosen
