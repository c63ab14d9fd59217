"""Names that are checked before they are built into a topic, a certificate, a path or a label."""

import re
from typing import Annotated, Final

from pydantic import StringConstraints

from edge.errors import InvalidInputError

NAME_PATTERN: Final = r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"
"""Cluster and device names. No `/`, `+` or `#`: a certificate named `d1/cmd` would inject commands into `d1`."""

TASK_ID_PATTERN: Final = r"^[0-9a-f]{32}$"
"""A task id is 128 random bits in hexadecimal, as ECS writes it."""

COMMAND_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{8,64}$"
"""A command id is its idempotency key; it is a topic level, so it has no `/`."""

FAMILY_PATTERN: Final = r"^[A-Za-z0-9_-]{1,255}$"

ClusterName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
DeviceId = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
TaskId = Annotated[str, StringConstraints(pattern=TASK_ID_PATTERN)]
CommandId = Annotated[str, StringConstraints(pattern=COMMAND_ID_PATTERN)]

_NAME = re.compile(NAME_PATTERN)


def check_name(kind: str, value: str) -> str:
    """Return `value` if it can be a cluster or device name.

    Raises:
        InvalidInputError: It cannot; the message says what a name looks like.
    """
    if not _NAME.fullmatch(value):
        raise InvalidInputError(
            f"{kind} {value!r} is not a name",
            hint="Use 1 to 64 lower-case letters, digits and '-', beginning and ending with a letter or digit.",
        )
    return value


def task_arn(cluster: str, task_id: str) -> str:
    """Name a task the way ECS tools split names: six parts between colons, the last `task/<cluster>/<id>`."""
    return f"arn:edge:ecs:::task/{cluster}/{task_id}"


def container_arn(cluster: str, task_id: str, container: str) -> str:
    """Name a container of a task."""
    return f"arn:edge:ecs:::container/{cluster}/{task_id}/{container}"


def container_instance_arn(cluster: str, device: str) -> str:
    """Name a device in ECS's words."""
    return f"arn:edge:ecs:::container-instance/{cluster}/{device}"


def cluster_arn(cluster: str) -> str:
    """Name a cluster."""
    return f"arn:edge:ecs:::cluster/{cluster}"


def task_definition_arn(family: str, revision: int) -> str:
    """Name a registered task definition."""
    return f"arn:edge:ecs:::task-definition/{family}:{revision}"


def service_arn(cluster: str, name: str) -> str:
    """Name a service."""
    return f"arn:edge:ecs:::service/{cluster}/{name}"
