"""From the broker into the store: many blocks a transaction, and no PUBACK before the commit."""

import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from edge.errors import BrokerError, BrokerUnavailableError, InvalidInputError
from edge.fleet.telemetry_store import TelemetryStore
from edge.model.telemetry import Batch, parse_batch
from edge.model.topics import ROOT, parse_device
from edge.mqtt.broker import Broker, BrokerEvent, Connected, Disconnected, MessageReceived, Subscribed

_log = logging.getLogger(__name__)

MOST_AT_ONCE: Final = 64
_REFUSED: Final = 0x80


class TelemetryCollector:
    """Collects what the devices of a cluster send; used from one thread.

    Args:
        broker: A connection whose session outlives it for a while: what is on its way when it is lost comes again.
        now: RFC 3339, for when something arrived.
    """

    def __init__(self, broker: Broker, store: TelemetryStore, cluster: str, now: Callable[[], str]) -> None:
        self._broker = broker
        self._store = store
        self._cluster = cluster
        self._now = now
        self._events: SimpleQueue[BrokerEvent] = SimpleQueue()
        self._refused = ""
        self.stored = 0
        self.doubled = 0
        self.unreadable = 0

    def start(self) -> None:
        """Begin to connect."""
        self._broker.start(self._events.put)

    def step(self, seconds: float | None) -> bool:
        """Store what has come; wait so long for the first. Returns whether there was anything.

        Raises:
            BrokerError: The broker refuses the subscription.
            BrokerUnavailableError: It cannot be reached (the connection goes on trying).
            StoreError: What came could not be stored; the broker keeps it.
        """
        messages: list[MessageReceived] = []
        try:
            event: BrokerEvent | None = self._events.get(timeout=seconds)
        except Empty:
            return False
        while event is not None and len(messages) < MOST_AT_ONCE:
            if isinstance(event, MessageReceived):
                messages.append(event)
            else:
                self._take(event)
            event = self._next()
        if isinstance(event, MessageReceived):
            messages.append(event)
        elif event is not None:
            self._take(event)
        self._keep(messages)
        return True

    def close(self) -> None:
        """Disconnect; the broker keeps what comes."""
        self._broker.stop()

    def _next(self) -> BrokerEvent | None:
        try:
            return self._events.get_nowait()
        except Empty:
            return None

    def _take(self, event: BrokerEvent) -> None:
        match event:
            case Connected():
                self._broker.subscribe(((f"{ROOT}/{self._cluster}/+/tel/+", 1),))
            case Subscribed() if any(code >= _REFUSED for code in event.reason_codes):
                raise BrokerError(
                    "the broker refuses the subscription to telemetry",
                    hint="Its access list must let the operator read there: see `edge fleet broker-config`.",
                )
            case Disconnected() if event.refused:
                raise BrokerUnavailableError(f"the broker refuses the connection: {event.reason}")
            case _:
                pass

    def _keep(self, messages: list[MessageReceived]) -> None:
        batches = []
        for message in messages:
            try:
                batches.append(_read(message))
            except InvalidInputError as error:
                # It would be no better if it came again.
                self.unreadable += 1
                _log.warning("%s: %s", message.topic, error)
        if batches:
            new = self._store.add(batches, self._now())
            self.stored += new
            self.doubled += len(batches) - new
        for message in messages:
            self._broker.acknowledge(message)


def _read(message: MessageReceived) -> tuple[str, str, Batch, bytes]:
    where = parse_device(message.topic)
    if where is None:
        raise InvalidInputError(f"{message.topic} is no device's")
    batch = parse_batch(message.payload)
    if where[1] != f"tel/{batch.stream}":
        raise InvalidInputError(f"a batch of {batch.stream} came on {message.topic}")
    return where[0].cluster, where[0].device, batch, message.payload.partition(b"\n")[2]
