"""Container logs over MQTT: the last lines as one answer, or a stream of frames with a window.

The device sends at most 256 frames ahead of the last acknowledgement and ends the stream 30 s after it, so that an
operator who vanished costs nothing.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final

from edge.errors import TransientError
from edge.fleet.commands import SealedCommand, await_result, judged, send
from edge.fleet.link import FleetLink
from edge.fleet.messages import CommandAnswered, FleetMessage, FramesStreamed, LinkBack, LinkLost
from edge.model.documents import CommandStatus

ACKNOWLEDGE_FRAMES: Final = 64
ACKNOWLEDGE_SECONDS: Final = 10.0
_STREAM_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of a container; `time` is RFC 3339, `stream` `stdout` or `stderr`."""

    container: str
    stream: str
    time: str
    text: str


@dataclass(frozen=True, slots=True)
class LinesLost:
    """So many lines did not arrive."""

    count: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The device ended the stream."""

    reason: str


LogItem = LogRecord | LinesLost | StreamEnded


def tail(link: FleetLink, sealed: SealedCommand) -> tuple[list[LogRecord], bool]:
    """Send a `logs` command without `follow`; return its lines, and whether earlier ones were left out.

    Raises:
        EdgeError: As `await_result`.
    """
    send(link, sealed)
    result = await_result(link, sealed).result
    lines = result.get("lines")
    found = [line_of(line) for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []
    return found, bool(result.get("truncated"))


def follow(
    link: FleetLink, sealed: SealedCommand, *, acknowledge_seconds: float = ACKNOWLEDGE_SECONDS
) -> Generator[LogItem, None, None]:
    """Send a `logs` command with `follow` and yield what the containers write, until the device ends the stream.

    Closing the iterator ends the stream at the device.

    Raises:
        EdgeError: As `await_result`.
        TransientError: The link was away for so long that the device gave the stream up.
    """
    link.subscribe((sealed.topics.stream_out(sealed.command.id), 0))
    send(link, sealed)
    stream = _Stream(link, sealed, acknowledge_seconds)
    try:
        yield from stream.items()
    finally:
        stream.close()


def line_of(line: dict[str, Any]) -> LogRecord:
    """Read one line of an answer or a frame."""
    return LogRecord(*(str(line.get(name, "")) for name in ("container", "stream", "time", "text")))


class _Stream:
    def __init__(self, link: FleetLink, sealed: SealedCommand, acknowledge_seconds: float) -> None:
        self._acknowledge_seconds = acknowledge_seconds
        self._link = link
        self._sealed = sealed
        self._seen: int | None = None
        self._acknowledged: int | None = None
        self._acknowledged_at = time.monotonic()
        self._lost_at: float | None = None
        self._ended = False
        self._heard = False

    def items(self) -> Iterator[LogItem]:
        deadline = time.monotonic() + self._sealed.command.lifetime_seconds
        while not self._ended:
            for message in self._link.messages(self._until_acknowledgement()):
                yield from self._take(message)
                if self._is_due():
                    break
            if not self._heard and time.monotonic() > deadline:
                # Says why in the words of every command that is not answered.
                await_result(self._link, self._sealed, until_running=True)
            self._acknowledge()

    def close(self) -> None:
        if not self._ended:
            self._say({"close": True})

    def _is_due(self) -> bool:
        return self._ended or self._until_acknowledgement() <= 0

    def _until_acknowledgement(self) -> float:
        if self._unacknowledged() >= ACKNOWLEDGE_FRAMES:
            return 0.0
        return self._acknowledged_at + self._acknowledge_seconds - time.monotonic()

    def _unacknowledged(self) -> int:
        return 0 if self._seen is None else self._seen - (-1 if self._acknowledged is None else self._acknowledged)

    def _take(self, message: FleetMessage) -> Iterator[LogItem]:
        match message:
            case FramesStreamed(stream_id=stream_id, document=document) if stream_id == self._sealed.command.id:
                self._heard = True
                yield from self._frames(document)
            case CommandAnswered(result=result) if result.id == self._sealed.command.id:
                self._answered(message)
            case LinkLost():
                self._lost_at = time.monotonic()
            case LinkBack():
                self._back()
            case _:
                pass

    def _answered(self, message: CommandAnswered) -> None:
        self._heard = True
        self._ended = message.result.status not in (CommandStatus.ACCEPTED, CommandStatus.RUNNING)
        judged(self._sealed.command, message.result)

    def _frames(self, document: dict[str, Any]) -> Iterator[LogItem]:
        frames = document.get("frames")
        for frame in frames if isinstance(frames, list) else []:
            if isinstance(frame, dict) and isinstance(frame.get("seq"), int):
                yield from self._frame(frame["seq"], frame)
        if document.get("end"):
            self._ended = True
            yield StreamEnded(str(document["end"]))

    def _frame(self, sequence: int, frame: dict[str, Any]) -> Iterator[LogItem]:
        if self._seen is not None and sequence <= self._seen:
            return
        if self._seen is not None and sequence > self._seen + 1:
            yield LinesLost(sequence - self._seen - 1)
        self._seen = sequence
        yield line_of(frame)

    def _acknowledge(self) -> None:
        self._acknowledged = self._seen
        self._acknowledged_at = time.monotonic()
        if not self._ended:
            # Said without any frame, too: a device ends the stream of an operator it does not hear of.
            self._say({"ack": self._seen or 0})

    def _back(self) -> None:
        away = time.monotonic() - (self._lost_at or time.monotonic())
        self._lost_at = None
        if away + self._acknowledge_seconds > _STREAM_SECONDS:
            raise TransientError(
                f"the link was away for {away:.0f} s and the device ended the stream", hint="Run the command again."
            )

    def _say(self, document: dict[str, Any]) -> None:
        self._link.publish_document(self._sealed.topics.stream_in(self._sealed.command.id), document)
