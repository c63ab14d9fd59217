"""An update of `edge` itself, as it is written down: what was asked for, what is on trial, what came of it.

These documents lie in `update/` of the state directory. The agent writes the request and reads the result; the updater
(`edge.firmware`) does the rest. Two versions of `edge` meet here, so the names and their meaning stay.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, Self, assert_never

from pydantic import Field, model_validator

from edge.model.document import Document
from edge.model.runtime_bundle import MAXIMUM_BUNDLE_BYTES, VersionText

DEFAULT_WINDOW_SECONDS: Final = 180
STEADY_SECONDS: Final = 10.0
"""How long the new agent must have been well without a break: a crash loop has good moments too."""
MAXIMUM_ATTEMPTS: Final = 3
"""Trials of one version that may be cut off (power, a kernel that dies with it) before the old one comes back."""


class BundleReference(Document):
    """Bytes in a registry. `url` is `registry/repository`; `digest` and `size` are the bundle file's own."""

    url: Annotated[str, Field(min_length=3, max_length=255)]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1, le=2 * MAXIMUM_BUNDLE_BYTES, strict=True)]


class UpdateRequest(Document):
    """What was asked for; `ref` or `file`, and not both.

    Attributes:
        id: The command's idempotency key, or one made at the device.
        file: An absolute path on the device.
        window_seconds: From the switch until the new agent must be well.
        allow_downgrade: Never by command: only root at the device says so.
    """

    schema_version: Literal[1] = 1
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    ref: BundleReference | None = None
    file: Annotated[str, Field(pattern=r"^/", max_length=4096)] | None = None
    window_seconds: Annotated[int, Field(ge=20, le=3600)] = DEFAULT_WINDOW_SECONDS
    allow_downgrade: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.ref is None) == (self.file is None):
            raise ValueError("give either ref or file")
        return self


class Phase(StrEnum):
    """Where a trial is."""

    TRYING = "TRYING"
    RETURNING = "RETURNING"
    """The old version comes back; `reason` says why."""


class Trial(Document):
    """A version that has not proved itself.

    Attributes:
        previous: What comes back if it does not.
        must_connect: The old agent had its broker, so the new one must find it too: a device that cannot be reached
            any more cannot be mended either.
        attempts: How often it was begun.
    """

    schema_version: Literal[1] = 1
    id: str
    version: VersionText
    previous: VersionText
    must_connect: bool
    window_seconds: int
    attempts: int = 0
    phase: Phase = Phase.TRYING
    reason: str = ""


class Outcome(StrEnum):
    """What came of an update."""

    INSTALLED = "INSTALLED"
    RETURNED = "RETURNED"
    """It was tried and was not well; the version before runs again."""
    REFUSED = "REFUSED"
    """It was not tried: signature, device, version."""
    FAILED = "FAILED"
    """It was not tried: it could not be had or unpacked."""


class UpdateResult(Document):
    """The last update's end. `version` is what was offered, empty when that could not be read."""

    schema_version: Literal[1] = 1
    id: str
    outcome: Outcome
    version: str = ""
    previous: str = ""
    reason: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """The agent as it looks from outside.

    Attributes:
        ready: It has seen Podman's containers and taken them up.
    """

    pid: int
    version: str
    ready: bool
    connected: bool


class Verdict(StrEnum):
    """Of one look at an agent on trial."""

    WELL = "WELL"
    UNWELL = "UNWELL"


def judge_agent(trial: Trial, seen: AgentSeen | None) -> tuple[Verdict, str]:
    """Say whether an agent on trial is well now, and what it lacks."""
    if seen is None:
        return Verdict.UNWELL, "the agent does not run"
    if seen.version != trial.version:
        return Verdict.UNWELL, f"the agent that runs is still version {seen.version}"
    if not seen.ready:
        return Verdict.UNWELL, "the agent runs, and has not found its containers"
    if trial.must_connect and not seen.connected:
        return Verdict.UNWELL, "the agent runs, and does not reach the broker, which the one before did"
    return Verdict.WELL, ""


def told(result: UpdateResult) -> str:
    """Return one sentence for a person."""
    match result.outcome:
        case Outcome.INSTALLED:
            return f"edge {result.version} runs, after {result.previous}"
        case Outcome.RETURNED:
            return f"edge {result.version} was not well, {result.previous} runs again: {result.reason}"
        case Outcome.REFUSED | Outcome.FAILED:
            return result.reason
        case _:
            assert_never(result.outcome)
