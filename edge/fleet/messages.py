"""What devices say, as typed values. Nothing here is signed: the broker vouches that it came from that device.

Every payload is judged before anything is done with it; what cannot be read becomes `Unreadable`, never an error, so
that one broken device does not end a command that watches many.
"""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edge.errors import InvalidInputError
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES, CommandResult, DeviceStatus, RevisionAck
from edge.model.start_profile import StartProfile
from edge.model.start_profiles_document import decode_profiles
from edge.model.topics import Topics, parse_device


@dataclass(frozen=True, slots=True)
class Reported:
    """Tasks, resources and images of a device."""

    device: Topics
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Born:
    """Attributes and capacity of a device."""

    device: Topics
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProfilesTold:
    """What a device's images read when they start."""

    device: Topics
    profiles: tuple[StartProfile, ...]


@dataclass(frozen=True, slots=True)
class StatusTold:
    """A device came, or went."""

    device: Topics
    status: DeviceStatus
    retained: bool


@dataclass(frozen=True, slots=True)
class RevisionJudged:
    """A device says what became of a revision; `retained` when it said so earlier."""

    device: Topics
    ack: RevisionAck
    retained: bool


@dataclass(frozen=True, slots=True)
class CommandAnswered:
    """A device says what became of a command."""

    device: Topics
    result: CommandResult


@dataclass(frozen=True, slots=True)
class EventHappened:
    """A state change, EventBridge-shaped."""

    device: Topics
    kind: str
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FramesStreamed:
    """Frames of a stream; `document` is `{frames: [...], end?: reason}`."""

    device: Topics
    stream_id: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something came that this version cannot read."""

    topic: str
    why: str


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The connection to the broker broke; it is being made again, and nothing is heard meanwhile."""

    reason: str


@dataclass(frozen=True, slots=True)
class LinkBack:
    """The connection is there again, with all its subscriptions."""


DeviceMessage = (
    Reported | Born | ProfilesTold | StatusTold | RevisionJudged | CommandAnswered | EventHappened | FramesStreamed
)
FleetMessage = DeviceMessage | Unreadable | LinkLost | LinkBack


def parse_message(topic: str, payload: bytes, *, retained: bool) -> DeviceMessage | Unreadable:
    """Read one message of a device."""
    try:
        found = parse_device(topic)
        document = _parse_object(payload)
        message = _typed(found[0], found[1], document, retained=retained) if found else None
    except (ValueError, RecursionError, InvalidInputError) as error:
        return Unreadable(topic, _first_line(error))
    return message or Unreadable(topic, "no such topic")


def _typed(  # noqa: PLR0911 - one for each channel
    device: Topics, channel: str, document: dict[str, Any], *, retained: bool
) -> DeviceMessage | None:
    match channel.split("/"):
        case ["reported"]:
            return Reported(device, document)
        case ["birth"]:
            return Born(device, document)
        case ["profiles"]:
            return ProfilesTold(device, decode_profiles(document))
        case ["status"]:
            return StatusTold(device, DeviceStatus.model_validate(document), retained)
        case ["desired", "ack"]:
            return RevisionJudged(device, RevisionAck.model_validate(document), retained)
        case ["res", _, _]:
            return CommandAnswered(device, CommandResult.model_validate(document))
        case ["evt", kind]:
            return EventHappened(device, kind, document)
        case ["stream", stream_id, "out"]:
            return FramesStreamed(device, stream_id, document)
        case _:
            return None


def _parse_object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAXIMUM_DOCUMENT_BYTES:
        raise ValueError(f"{len(payload)} bytes are more than {MAXIMUM_DOCUMENT_BYTES}")
    document = json.loads(payload.decode())
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one family for whatever is wrong with a payload
    return document


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
