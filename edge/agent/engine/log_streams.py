"""`edge task logs`: lines from the container engine to the operator, as an answer or as a stream with a window.

Each follower is a thread of its own, there only while somebody follows: it reads lines, gathers what is there within a
moment into one frame batch, and waits when the operator has not acknowledged the last `WINDOW` frames.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from edge.agent.engine.ports import Clock, ContainerEngine, LogLine
from edge.errors import EdgeError
from edge.model.documents import CommandStatus
from edge.mqtt.broker import Broker, Publication

_log = logging.getLogger(__name__)

WINDOW: Final = 256
"""Frames sent and not acknowledged at most."""
ACK_SECONDS: Final = 30.0
"""A follower that heard no acknowledgement for so long is gone."""
MAXIMUM_FOLLOWERS: Final = 8
MAXIMUM_LINES: Final = 1_000
"""Lines in one answer; `truncated` says that there were more."""
_MAXIMUM_BYTES: Final = 128 * 1024
_MAXIMUM_TEXT: Final = 16 * 1024
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Whose lines are wanted: `(container name, runtime id)` each, the newest `tail` of them."""

    sources: tuple[tuple[str, str], ...]
    tail: int | None


def read_lines(engine: ContainerEngine, request: LogRequest) -> dict[str, Any]:
    """Return `{lines, truncated}`, the newest lines in order of time, within the bounds of one document.

    Raises:
        EngineError: The log cannot be read.
    """
    tail = MAXIMUM_LINES if request.tail is None else min(request.tail, MAXIMUM_LINES)
    lines: list[dict[str, str]] = []
    for name, runtime_id in request.sources:
        # One line more than wanted, to know whether there were more.
        lines.extend(_line(name, line) for line in engine.logs(runtime_id, tail=tail + 1, follow=False))
    lines.sort(key=lambda line: line["time"])
    kept: list[dict[str, str]] = []
    size = 0
    for line in reversed(lines[max(0, len(lines) - tail) :]):
        size += len(json.dumps(line))
        if size > _MAXIMUM_BYTES:
            break
        kept.append(line)
    kept.reverse()
    return {"lines": kept, "truncated": len(kept) < len(lines) and request.tail is None}


def _line(name: str, line: LogLine) -> dict[str, str]:
    return {"container": name, "stream": line.stream, "time": line.time, "text": line.text[:_MAXIMUM_TEXT]}


@dataclass(slots=True)
class _Follower:
    topic: str
    ended: Callable[[CommandStatus, str], None]
    frames: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    acknowledged: int = 0
    heard: float = 0.0
    open_sources: int = 0
    closed: bool = False
    reason: str = ""
    iterators: list[Iterator[LogLine]] = field(default_factory=list)
    condition: threading.Condition = field(default_factory=threading.Condition)


class LogStreams:
    """The followers there are, by command id. Calls may come from any thread."""

    def __init__(self, engine: ContainerEngine, broker: Broker, clock: Clock) -> None:
        self._engine = engine
        self._broker = broker
        self._clock = clock
        self._followers: dict[str, _Follower] = {}
        self._lock = threading.Lock()

    def follow(
        self, stream_id: str, topic: str, request: LogRequest, ended: Callable[[CommandStatus, str], None]
    ) -> bool:
        """Begin to send lines to `topic`; `ended` is called once from another thread. False when there are too many."""
        follower = _Follower(topic, ended, heard=self._clock.monotonic(), open_sources=len(request.sources))
        with self._lock:
            if len(self._followers) >= MAXIMUM_FOLLOWERS:
                return False
            self._followers[stream_id] = follower
        for name, runtime_id in request.sources:
            arguments = (follower, name, runtime_id, request.tail)
            threading.Thread(target=self._read, args=arguments, name="log-reader", daemon=True).start()
        threading.Thread(target=self._send, args=(stream_id, follower), name="log-sender", daemon=True).start()
        return True

    def heard(self, stream_id: str, payload: bytes) -> None:
        """The operator said something: `{"ack": seq}` or `{"close": true}`."""
        with self._lock:
            follower = self._followers.get(stream_id)
        if follower is None or len(payload) > 1024:  # noqa: PLR2004 - an acknowledgement is a few bytes
            return
        try:
            said = json.loads(payload)
            acknowledged, close = int(said.get("ack", 0)), bool(said.get("close"))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return
        with follower.condition:
            follower.heard = self._clock.monotonic()
            follower.acknowledged = max(follower.acknowledged, min(acknowledged, follower.sent))
            follower.closed = follower.closed or close
            follower.condition.notify_all()

    def close(self) -> None:
        """End all followers."""
        with self._lock:
            followers = list(self._followers.values())
        for follower in followers:
            with follower.condition:
                follower.closed = True
                follower.condition.notify_all()

    def _read(self, follower: _Follower, name: str, runtime_id: str, tail: int | None) -> None:
        try:
            lines = self._engine.logs(runtime_id, tail=tail, follow=True)
            follower.iterators.append(lines)
            for line in lines:
                with follower.condition:
                    follower.condition.wait_for(lambda: len(follower.frames) < WINDOW or follower.closed)
                    if follower.closed:
                        break
                    follower.frames.append(_line(name, line))
                    follower.condition.notify_all()
        except EdgeError as error:
            follower.reason = str(error)
        with follower.condition:
            follower.open_sources -= 1
            follower.condition.notify_all()

    def _send(self, stream_id: str, follower: _Follower) -> None:
        reason = ""
        while not reason:
            with follower.condition:
                follower.condition.wait_for(lambda: _something_to_do(follower), timeout=5.0)
                reason = self._why_over(follower)
                room = WINDOW - (follower.sent - follower.acknowledged)
                batch = [] if follower.closed else follower.frames[: min(_BATCH, room)]
                del follower.frames[: len(batch)]
                first = follower.sent + 1
                follower.sent += len(batch)
                follower.condition.notify_all()
            if batch or reason:
                frames = [{"seq": first + index, **line} for index, line in enumerate(batch)]
                self._publish(follower.topic, {"frames": frames} | ({"end": reason} if reason else {}))
        with self._lock:
            self._followers.pop(stream_id, None)
        for lines in follower.iterators:
            close = getattr(lines, "close", None)
            if close is not None:
                close()
        follower.ended(CommandStatus.SUCCEEDED, reason)

    def _why_over(self, follower: _Follower) -> str:
        if follower.closed:
            return "closed"
        if self._clock.monotonic() - follower.heard > ACK_SECONDS:
            follower.closed = True
            return "nobody acknowledged"
        left = len(follower.frames) > min(_BATCH, WINDOW - (follower.sent - follower.acknowledged))
        if follower.open_sources == 0 and not left:
            return follower.reason or "the containers have stopped"
        return ""

    def _publish(self, topic: str, document: dict[str, Any]) -> None:
        payload = json.dumps(document, separators=(",", ":")).encode()
        self._broker.publish(Publication(topic, payload, 0, qos=0))


def _something_to_do(follower: _Follower) -> bool:
    if follower.frames:
        return follower.closed or follower.sent - follower.acknowledged < WINDOW
    return follower.closed or follower.open_sources == 0
