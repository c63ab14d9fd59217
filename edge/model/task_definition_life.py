"""The parts of a container definition that say how it lives: health checks, dependencies, restarts."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Part(BaseModel):
    """A part of a task definition: frozen, camelCase on the wire, and nothing in it unknown."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True, extra="forbid")


Condition = Literal["START", "COMPLETE", "SUCCESS", "HEALTHY"]
RESTART_PERIOD: Final = 300
"""Seconds; ECS's default `restartAttemptPeriod`."""


class HealthCheck(Part):
    """How the agent finds out whether a container does its work; bounds and defaults are ECS's.

    Attributes:
        command: `CMD` and its arguments, or `CMD-SHELL` and a line for the container's `/bin/sh`.
        interval: Seconds between the end of a check and the next one.
        timeout: Seconds a check may take; one that takes longer is killed and has failed.
        retries: So many failures in a row are UNHEALTHY.
        start_period: Seconds after the start in which failures do not count.
    """

    command: Annotated[list[Annotated[str, Field(max_length=32 * 1024)]], Field(min_length=1, max_length=256)]
    interval: Annotated[int, Field(ge=5, le=300, strict=True)] = 30
    timeout: Annotated[int, Field(ge=2, le=60, strict=True)] = 5
    retries: Annotated[int, Field(ge=1, le=10, strict=True)] = 3
    start_period: Annotated[int, Field(ge=0, le=300, strict=True)] = 0

    def argv(self) -> tuple[str, ...]:
        """Return what is run inside the container."""
        kind, *rest = self.command
        if kind == "CMD-SHELL":
            return ("/bin/sh", "-c", " ".join(rest))
        return tuple(rest) if kind == "CMD" else tuple(self.command)


class Dependency(Part):
    """What must be so of another container before this one starts."""

    container_name: Annotated[str, Field(min_length=1, max_length=255)]
    condition: Condition


class RestartPolicy(Part):
    """Whether a container that ends is started again in its task.

    Attributes:
        ignored_exit_codes: After one of these it is not.
        restart_attempt_period: Seconds it must have run for the next start to be at once; before that the starts wait
            ever longer (ECS would give the container up).
    """

    enabled: bool
    ignored_exit_codes: Annotated[list[Annotated[int, Field(ge=0, le=255, strict=True)]], Field(max_length=50)] = Field(
        default_factory=list
    )
    restart_attempt_period: Annotated[int, Field(ge=60, le=1800, strict=True)] = RESTART_PERIOD
