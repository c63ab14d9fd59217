"""An MQTT broker in memory, and connections to it with the port's shape.

`FakeHub()` delivers nothing until a test calls `pump()`; `FakeHub(threaded=True)` has one background thread that
does. Time is `clock`; a test may give its own. Faults are attributes and methods of the hub.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from edge.errors import BrokerError
from edge.mqtt.broker import (
    BrokerEvent,
    BrokerSettings,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
    Will,
)

SUCCESS: Final = 0x00
NO_MATCHING_SUBSCRIBERS: Final = 0x10
TOPIC_FILTER_INVALID: Final = 0x8F
TOPIC_NAME_INVALID: Final = 0x90
PACKET_TOO_LARGE: Final = 0x95
_OVERHEAD: Final = 64
"""Bytes of a PUBLISH besides topic and payload, about."""


def matches(pattern: str, topic: str) -> bool:
    """MQTT's topic filters: `+` is one level, a last `#` all that follow; neither matches a first `$…` level."""
    wanted, levels = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


@dataclass(frozen=True, slots=True)
class _Stored:
    publication: Publication
    expires_at: float = float("inf")


@dataclass(slots=True)
class _Session:
    filters: dict[str, int] = field(default_factory=dict)
    queue: deque[_Stored] = field(default_factory=deque)
    inflight: OrderedDict[int, _Stored] = field(default_factory=OrderedDict)
    next_packet_id: int = 1
    expires_at: float = float("inf")


class FakeHub:
    """The broker.

    Attributes:
        up: False: nobody can connect, as when no broker listens.
        refusing: True: it answers and says no.
        never_acknowledge: True: publications are taken and distributed, and no PUBACK is sent.
        held: Clients whose publications are lost on the way.
        published: Everything it accepted, in order.
    """

    def __init__(
        self,
        *,
        threaded: bool = False,
        clock: Callable[[], float] = time.monotonic,
        receive_maximum: int = 20,
        maximum_packet_size: int = 268_435_460,
    ) -> None:
        self.up = True
        self.refusing = False
        self.never_acknowledge = False
        self.held: set[str] = set()
        self.published: list[Publication] = []
        self.retained: dict[str, _Stored] = {}
        self.receive_maximum = receive_maximum
        self.maximum_packet_size = maximum_packet_size
        self.clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._sessions: dict[str, _Session] = {}
        self._online: dict[str, FakeBroker] = {}
        self._wills: dict[str, tuple[float, Will]] = {}
        self._attempts: list[tuple[float, FakeBroker]] = []
        self._blocked: set[str] = set()
        self._events: deque[tuple[FakeBroker, BrokerEvent]] = deque()
        self._delivering = threading.RLock()
        self._closed = False
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    # ---- for tests

    def broker(self, settings: BrokerSettings) -> "FakeBroker":
        """A connection to this hub."""
        return FakeBroker(self, settings)

    def pump(self) -> int:
        """Do what is due and deliver events until there are none; return how many were delivered."""
        count = 0
        with self._delivering:
            while True:
                with self._changed:
                    self._do_what_is_due()
                    if not self._events:
                        return count
                    broker, event = self._events.popleft()
                broker.deliver(event)
                count += 1

    def drop(self, client_id: str) -> None:
        """Cut one client's connection: its will is due, and it tries again."""
        with self._changed:
            broker = self._online.get(client_id)
            if broker is not None:
                self._lose(broker, "the connection was cut")
            self._changed.notify_all()

    def block(self, client_id: str) -> None:
        """Drop one client and do not let it through again until `unblock`, as a cut cable does."""
        with self._changed:
            self._blocked.add(client_id)
            self.drop(client_id)

    def unblock(self, client_id: str) -> None:
        """Let it through again."""
        with self._changed:
            self._blocked.discard(client_id)

    def kill(self, *, keep_sessions: bool = False) -> None:
        """The broker dies: connections, wills and, unless kept, sessions and retained messages are gone."""
        with self._changed:
            self.up = False
            for broker in list(self._online.values()):
                self._lose(broker, "the broker died")
            self._wills.clear()
            if not keep_sessions:
                self._sessions.clear()
                self.retained.clear()
            self._changed.notify_all()

    def restart(self) -> None:
        """It can be reached again."""
        with self._changed:
            self.up = True
            self._changed.notify_all()

    def publish(self, publication: Publication) -> bool:
        """Publish as if another client did; return whether anybody subscribed to it."""
        with self._changed:
            matched = self._distribute(publication)
            self._changed.notify_all()
            return matched

    def close(self) -> None:
        """End the background thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(10)

    # ---- for FakeBroker; each under the lock

    def attempt(self, broker: "FakeBroker", at: float) -> None:
        """Let a client try to connect at this time."""
        with self._changed:
            self._attempts.append((at, broker))
            self._changed.notify_all()

    def accept(self, broker: "FakeBroker", publication: Publication) -> bool:
        """Take a publication of a client; False when the client is not connected."""
        with self._changed:
            if self._online.get(broker.client_id) is not broker:
                return False
            if broker.client_id in self.held:
                return True
            code = self._judge(publication)
            if code == SUCCESS and not self._distribute(publication):
                code = NO_MATCHING_SUBSCRIBERS
            if publication.qos == 0 and code == NO_MATCHING_SUBSCRIBERS:
                code = SUCCESS
            if publication.qos == 0 or not self.never_acknowledge:
                self._tell(broker, PublicationAcknowledged(publication.token, code))
            return True

    def subscribe(self, broker: "FakeBroker", filters: tuple[tuple[str, int], ...]) -> bool:
        """Add subscriptions and send what is retained."""
        with self._changed:
            if self._online.get(broker.client_id) is not broker:
                return False
            session = self._sessions[broker.client_id]
            codes = tuple(qos if _is_filter(name) else TOPIC_FILTER_INVALID for name, qos in filters)
            session.filters.update({name: qos for name, qos in filters if _is_filter(name)})
            self._tell(broker, Subscribed(tuple(name for name, _ in filters), codes))
            for name, qos in filters:
                for topic, stored in list(self.retained.items()):
                    if _is_filter(name) and matches(name, topic):
                        self._queue(session, stored, min(qos, stored.publication.qos), retain=True)
            self._send_queued(broker)
            return True

    def acknowledged(self, broker: "FakeBroker", message: MessageReceived) -> None:
        """Take a PUBACK."""
        with self._changed:
            if self._online.get(broker.client_id) is broker and message.connection == broker.connection:
                self._sessions[broker.client_id].inflight.pop(message.packet_id, None)
                self._send_queued(broker)

    def leave(self, broker: "FakeBroker") -> None:
        """A client said good-bye: no will."""
        with self._changed:
            self._attempts = [(at, who) for at, who in self._attempts if who is not broker]
            self._events = deque((who, event) for who, event in self._events if who is not broker)
            if self._online.get(broker.client_id) is broker:
                del self._online[broker.client_id]
                self._end_session(broker)

    # ---- within

    def _run(self) -> None:
        while True:
            self.pump()
            with self._changed:
                if self._closed:
                    return
                if not self._events:
                    due = [at for at, _ in self._attempts] + [at for at, _ in self._wills.values()]
                    left = min(due) - self.clock() if due else None
                    if left is None or left > 0:
                        self._changed.wait(left)

    def _tell(self, broker: "FakeBroker", event: BrokerEvent) -> None:
        self._events.append((broker, event))
        self._changed.notify_all()

    def _do_what_is_due(self) -> None:
        now = self.clock()
        for client_id, (at, will) in list(self._wills.items()):
            if at <= now:
                del self._wills[client_id]
                self._distribute(Publication(will.topic, will.payload, 0, will.qos, will.retain))
        for attempt in [attempt for attempt in self._attempts if attempt[0] <= now]:
            self._attempts.remove(attempt)
            self._connect(attempt[1])

    def _connect(self, broker: "FakeBroker") -> None:
        if not self.up or broker.client_id in self._blocked:
            self._fail(broker, "connection refused", refused=False)
            return
        if self.refusing:
            self._fail(broker, "the broker refused us: Not authorized (0x87)", refused=True)
            return
        other = self._online.get(broker.client_id)
        if other is not None:
            self._lose(other, "session taken over")
        session = self._sessions.get(broker.client_id)
        present = session is not None and session.expires_at > self.clock() and not broker.clean
        if session is None or not present:
            session = self._sessions[broker.client_id] = _Session()
        session.expires_at = float("inf")
        self._wills.pop(broker.client_id, None)
        self._online[broker.client_id] = broker
        broker.connection += 1
        broker.sent_will = broker.will
        broker.ready = True
        self._tell(broker, Connected(present, self.receive_maximum, self.maximum_packet_size))
        session.queue.extendleft(reversed(session.inflight.values()))
        session.inflight.clear()
        self._send_queued(broker)

    def _lose(self, broker: "FakeBroker", reason: str) -> None:
        del self._online[broker.client_id]
        will = broker.sent_will
        if will is not None:
            delay = min(will.delay_seconds, broker.settings.session_expiry_seconds)
            self._wills[broker.client_id] = (self.clock() + delay, will)
        self._end_session(broker)
        self._fail(broker, reason, refused=False)

    def _end_session(self, broker: "FakeBroker") -> None:
        broker.ready = False
        if broker.clean:
            self._sessions.pop(broker.client_id, None)
        else:
            session = self._sessions[broker.client_id]
            session.expires_at = self.clock() + broker.settings.session_expiry_seconds

    def _fail(self, broker: "FakeBroker", reason: str, *, refused: bool) -> None:
        # What was under way to the client is lost with the connection; so are acknowledgements.
        self._events = deque((who, event) for who, event in self._events if who is not broker)
        delay = broker.settings.backoff_first_seconds
        self._tell(broker, Disconnected(reason, refused, delay))
        self._attempts.append((self.clock() + delay, broker))

    def _judge(self, publication: Publication) -> int:
        if len(publication.topic.encode()) + len(publication.payload) + _OVERHEAD > self.maximum_packet_size:
            return PACKET_TOO_LARGE
        if not publication.topic or set("+#") & set(publication.topic):
            return TOPIC_NAME_INVALID
        return SUCCESS

    def _distribute(self, publication: Publication) -> bool:
        self.published.append(publication)
        expiry = publication.expiry_seconds
        stored = _Stored(publication, float("inf") if expiry is None else self.clock() + expiry)
        if publication.retain and publication.payload:
            self.retained[publication.topic] = stored
        elif publication.retain:
            self.retained.pop(publication.topic, None)
        matched = False
        for client_id, session in self._sessions.items():
            granted = [qos for name, qos in session.filters.items() if matches(name, publication.topic)]
            if granted:
                matched = True
                self._queue(session, stored, min(max(granted), publication.qos), retain=False)
                if client_id in self._online:
                    self._send_queued(self._online[client_id])
        return matched

    def _queue(self, session: _Session, stored: _Stored, qos: int, *, retain: bool) -> None:
        session.queue.append(_Stored(replace(stored.publication, qos=qos, retain=retain), stored.expires_at))

    def _send_queued(self, broker: "FakeBroker") -> None:
        session = self._sessions[broker.client_id]
        while session.queue and len(session.inflight) < broker.settings.receive_maximum:
            stored = session.queue.popleft()
            publication = stored.publication
            size = len(publication.topic.encode()) + len(publication.payload) + _OVERHEAD
            if stored.expires_at <= self.clock() or size > broker.settings.maximum_packet_size:
                continue
            packet_id = 0
            if publication.qos:
                packet_id = session.next_packet_id
                session.next_packet_id = packet_id % 65535 + 1
                session.inflight[packet_id] = stored
            self._tell(
                broker,
                MessageReceived(
                    publication.topic,
                    publication.payload,
                    publication.qos,
                    publication.retain,
                    packet_id,
                    publication.response_topic,
                    publication.correlation,
                    broker.connection,
                ),
            )


class FakeBroker:
    """One client of a `FakeHub`; a `Broker`."""

    def __init__(self, hub: FakeHub, settings: BrokerSettings) -> None:
        self.settings = settings
        self.client_id = settings.client_id
        self.clean = settings.session_expiry_seconds == 0
        self.connection = 0
        self.will: Will | None = None
        self.sent_will: Will | None = None
        self.ready = False
        self._hub = hub
        self._on_event: Callable[[BrokerEvent], None] | None = None
        self._stopped = False

    def start(self, on_event: Callable[[BrokerEvent], None], will: Will | None = None) -> None:
        """See the port."""
        if self._on_event is not None:
            raise BrokerError("this broker connection was started before")
        self._on_event = on_event
        self.will = will
        self._hub.attempt(self, self._hub.clock())

    def publish(self, publication: Publication) -> bool:
        """See the port."""
        return not self._stopped and self._hub.accept(self, publication)

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> bool:
        """See the port."""
        return not self._stopped and self._hub.subscribe(self, filters)

    def acknowledge(self, message: MessageReceived) -> None:
        """See the port."""
        if message.qos:
            self._hub.acknowledged(self, message)

    def set_will(self, will: Will) -> None:
        """See the port."""
        self.will = will

    def stop(self, farewell: Publication | None = None, timeout_seconds: float = 2.0) -> None:
        """See the port; nothing needs to be waited for."""
        del timeout_seconds
        if farewell is not None:
            self.publish(farewell)
        self._stopped = True
        self._hub.leave(self)

    def deliver(self, event: BrokerEvent) -> None:
        """Called by the hub, one at a time."""
        if self._on_event is not None and not self._stopped:
            self._on_event(event)


def _is_filter(name: str) -> bool:
    levels = name.split("/")
    return (
        bool(name)
        and "#" not in levels[:-1]
        and all(level in ("+", "#") or not set("+#") & set(level) for level in levels)
    )
