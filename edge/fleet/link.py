"""The operator's line to the devices: a synchronous client over the broker port, for one command at a time."""

import itertools
import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, Self, assert_never

from edge.errors import BrokerError, BrokerUnavailableError, DeadlineError
from edge.fleet.messages import FleetMessage, LinkBack, LinkLost, parse_message
from edge.mqtt.broker import (
    Broker,
    BrokerEvent,
    BrokerSettings,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
)

BrokerFactory = Callable[[BrokerSettings], Broker]
CONNECT_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 10.0
"""How long a broker may take for a PUBACK or a SUBACK, unless a `FleetLink` is told otherwise."""
_REFUSED: Final = 0x80


def paho_broker(settings: BrokerSettings) -> Broker:
    """Make a real connection; the default of everything that takes a `BrokerFactory`."""
    from edge.mqtt.paho_broker import PahoBroker  # noqa: PLC0415 - heavy, and only needed for a real broker

    return PahoBroker(settings)


def new_client_id() -> str:
    """Return a client id nobody else has: a second one would throw the first out."""
    return f"operator-{secrets.token_hex(6)}"


class FleetLink:
    """A connection to the broker as operator, used from one thread; a context manager.

    Raises:
        BrokerError: The broker refuses: the connection, a subscription, a publication.
        BrokerUnavailableError: It does not answer.
        DeadlineError: It did not answer in time.
    """

    def __init__(
        self, settings: BrokerSettings, factory: BrokerFactory = paho_broker, *, answer_seconds: float = ANSWER_SECONDS
    ) -> None:
        self._answer_seconds = answer_seconds
        self._settings = settings
        self._broker = factory(settings)
        self._events: SimpleQueue[BrokerEvent] = SimpleQueue()
        self._inbox: deque[FleetMessage] = deque()
        self._connected = False
        self._was_connected = False
        self._lost: Disconnected | None = None
        self._filters: dict[str, int] = {}
        self._granted: dict[str, int] = {}
        self._acknowledged: dict[int, int] = {}
        self._echoes: set[str] = set()
        self._tokens = itertools.count(1)

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect in order."""
        self._broker.stop()

    def connect(self, timeout_seconds: float = CONNECT_SECONDS) -> None:
        """Connect, or say at once why not."""
        self._broker.start(self._events.put)
        try:
            self._first_connection(timeout_seconds)
        except BaseException:
            self._broker.stop()
            raise

    def _first_connection(self, timeout_seconds: float) -> None:
        self._wait(lambda: self._connected or self._lost is not None, timeout_seconds, "connect")
        if not self._connected:
            raise self._unreachable()

    def subscribe(self, *filters: tuple[str, int]) -> None:
        """Subscribe to `(filter, qos)` pairs and wait until the broker granted them; kept over reconnects."""
        self._filters.update(filters)
        self._renew(tuple(filters))
        names = [name for name, _ in filters]
        self._wait(lambda: all(name in self._granted for name in names), self._answer_seconds, "grant a subscription")
        refused = [name for name in names if self._granted[name] >= _REFUSED]
        if refused:
            raise BrokerError(f"the broker refuses the subscription to {refused[0]} (0x{self._granted[refused[0]]:x})")

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        expiry_seconds: int | None = None,
        qos: int = 1,
    ) -> int:
        """Publish and wait for the acknowledgement, over reconnects; returns the reason code.

        0x10 means that nobody is subscribed. With QoS 0 it returns when the message is on its way.
        """
        publication = Publication(
            topic, payload, next(self._tokens), qos=qos, retain=retain, expiry_seconds=expiry_seconds
        )
        deadline = time.monotonic() + self._answer_seconds
        while publication.token not in self._acknowledged:
            self._wait(lambda: self._connected, deadline - time.monotonic(), f"take {topic}")
            if self._broker.publish(publication):
                self._wait(
                    lambda: publication.token in self._acknowledged or not self._connected,
                    deadline - time.monotonic(),
                    f"acknowledge {topic}",
                )
        code = self._acknowledged.pop(publication.token)
        if code >= _REFUSED:
            raise BrokerError(
                f"the broker refuses to take {topic} (0x{code:x})",
                hint="Its access list must let the operator write there: see `edge fleet broker-config`.",
            )
        return code

    def publish_document(self, topic: str, document: dict[str, Any], *, qos: int = 0) -> None:
        """Publish a small JSON document."""
        self.publish(topic, json.dumps(document, separators=(",", ":")).encode(), qos=qos)

    def retained(self, cluster: str, filters: Sequence[str]) -> list[FleetMessage]:
        """Subscribe, and return what the broker has retained there.

        The end is found without waiting in vain: a message of our own, sent after the subscription was granted, comes
        back behind all that was retained.
        """
        echo = f"edge/v1/{cluster}/_ctl/{self._settings.client_id}/echo"
        self.subscribe(*((name, 1) for name in (*filters, echo)))
        self.publish(echo, b"{}", expiry_seconds=60)
        self._wait(lambda: echo in self._echoes, self._answer_seconds, "return what it retained")
        self._echoes.discard(echo)
        found = list(self._inbox)
        self._inbox.clear()
        return found

    def messages(self, timeout_seconds: float | None) -> Iterator[FleetMessage]:
        """Yield what comes, until the time is over; for ever with None."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            while self._inbox:
                yield self._inbox.popleft()
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return
            self._take(remaining)

    def _wait(self, condition: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._too_late(what)
            self._take(remaining)

    def _take(self, timeout_seconds: float | None) -> None:
        try:
            event = self._events.get(timeout=timeout_seconds)
        except Empty:
            return
        self._handle(event)

    def _handle(self, event: BrokerEvent) -> None:
        match event:
            case Connected():
                self._on_connected()
            case Disconnected():
                self._on_disconnected(event)
            case MessageReceived():
                self._on_message(event)
            case PublicationAcknowledged():
                self._acknowledged[event.token] = event.reason_code
            case Subscribed():
                self._granted.update(zip(event.filters, event.reason_codes, strict=False))
            case _:
                assert_never(event)

    def _on_connected(self) -> None:
        self._connected = True
        if self._was_connected:
            self._renew(tuple(self._filters.items()))
            self._inbox.append(LinkBack())
        self._was_connected = True

    def _on_disconnected(self, event: Disconnected) -> None:
        if self._connected:
            self._inbox.append(LinkLost(event.reason))
        self._connected = False
        self._lost = event

    def _on_message(self, message: MessageReceived) -> None:
        self._broker.acknowledge(message)
        if message.topic.endswith(f"/{self._settings.client_id}/echo"):
            self._echoes.add(message.topic)
        else:
            self._inbox.append(parse_message(message.topic, message.payload, retained=message.retain))

    def _renew(self, filters: tuple[tuple[str, int], ...]) -> None:
        for name, _ in filters:
            self._granted.pop(name, None)
        # False: not connected now; `_on_connected` subscribes again.
        self._broker.subscribe(filters)

    def _too_late(self, what: str) -> BrokerError | DeadlineError:
        if not self._connected:
            return self._unreachable()
        return DeadlineError(f"the broker at {self._address()} did not {what} in time")

    def _unreachable(self) -> BrokerError:
        if self._lost is not None and self._lost.refused:
            return BrokerError(
                f"the broker at {self._address()} refuses this operator: {self._lost.reason}",
                hint="It must trust the fleet's ca.crt: see `edge fleet broker-config`.",
            )
        why = f": {self._lost.reason}" if self._lost is not None else ""
        return BrokerUnavailableError(
            f"cannot reach the broker at {self._address()}{why}", hint="Is it running, and is that its operator port?"
        )

    def _address(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"
