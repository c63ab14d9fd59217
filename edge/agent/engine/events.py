"""What the engine is told: past-tense facts, put into its inbox by other threads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.agent.engine.local_requests import LocalRequest, Peer
from edge.agent.engine.ports import FoundContainer, Image, ImageArrival
from edge.errors import EdgeError
from edge.model.documents import CommandStatus
from edge.model.plan import Step
from edge.model.start_profile import StartProfile
from edge.mqtt.broker import BrokerEvent

StepOutcome = Image | FoundContainer | None
"""What a step that succeeded found: FetchImage an image; Create, Start and Stop the container; others nothing."""


@dataclass(frozen=True, slots=True)
class StepSucceeded:
    """A step was performed."""

    step: Step
    outcome: StepOutcome


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A step was tried, and did not come about (or may have: `EngineUnavailableError`)."""

    step: Step
    error: EdgeError


@dataclass(frozen=True, slots=True)
class PullBegan:
    """An image was not in the local store, and is being fetched for this container."""

    task_id: str
    container: str


@dataclass(frozen=True, slots=True)
class ImagesSeen:
    """How much has arrived of the images that start before they have; all of them."""

    arrivals: tuple[ImageArrival, ...]


@dataclass(frozen=True, slots=True)
class ProfilesSeen:
    """What the images of this device read when they start; all that is known."""

    profiles: tuple[StartProfile, ...]


@dataclass(frozen=True, slots=True)
class ContainerExited:
    """The process of a container is gone."""

    runtime_id: str


@dataclass(frozen=True, slots=True)
class ContainerInspected:
    """How a container is whose process went away; None when the engine does not know it, or did not answer."""

    runtime_id: str
    found: FoundContainer | None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class ContainersListed:
    """Everything of ours that the engine has."""

    found: tuple[FoundContainer, ...]
    engine_version: str


@dataclass(frozen=True, slots=True)
class ListingFailed:
    """The engine could not be asked."""

    error: EdgeError


@dataclass(frozen=True, slots=True)
class BrokerReported:
    """Something happened on the broker connection; `session` names the connection in its will and status."""

    event: BrokerEvent
    session: str


@dataclass(frozen=True, slots=True)
class CommandEnded:
    """A command that ran on a worker came to its end."""

    command_id: str
    status: CommandStatus
    result: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class HealthChecked:
    """A health check ended; `passed` is None when it could not be run."""

    task_id: str
    container: str
    runtime_id: str
    passed: bool | None


@dataclass(frozen=True, slots=True)
class LocalAsked:
    """Somebody at the device asks; `answer` takes the result or the error, once what was done is stored."""

    request: LocalRequest
    peer: Peer
    answer: Callable[[dict[str, Any] | EdgeError], None]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Something happened outside the engine that belongs into the audit trail."""

    what: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BirthChanged:
    """What the device is has more to it than when it was told last."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The agent should end; containers go on."""


ContainerEvent = (
    StepSucceeded
    | StepFailed
    | PullBegan
    | ImagesSeen
    | HealthChecked
    | ContainerInspected
    | ContainersListed
    | ListingFailed
)
"""What the container engine's side has to say."""
Event = (
    ContainerEvent
    | ContainerExited
    | ProfilesSeen
    | BrokerReported
    | BirthChanged
    | Witnessed
    | CommandEnded
    | LocalAsked
    | StopRequested
)
