"""What a fleet answers to its devices while nobody types: one connection, one thread, until it is stopped."""

import logging
from collections.abc import Callable
from datetime import datetime
from queue import Empty, SimpleQueue
from typing import Final

from edge.errors import BrokerError, BrokerUnavailableError, EdgeError, StoreError
from edge.fleet.enrollments import Enrollment, answer_enrollment
from edge.fleet.folder import Fleet
from edge.fleet.heads import answer_head
from edge.fleet.identities import answer_request
from edge.model.topics import ROOT, ActivationTopics, parse_device, parse_enrollment
from edge.mqtt.broker import Broker, BrokerEvent, Connected, Disconnected, MessageReceived, Publication, Subscribed

_log = logging.getLogger(__name__)

_REFUSED: Final = 0x80
_ANSWER_SECONDS: Final = 60
"""Nobody waits longer: a device that comes back asks anew."""


class Controller:
    """Answers the devices of a cluster; used from one thread.

    Attributes:
        answered, refused: Questions since the start.
    """

    def __init__(
        self,
        broker: Broker,
        fleet: Fleet,
        now: Callable[[], datetime],
        let_in: Callable[[Enrollment], None] = lambda _: None,
    ) -> None:
        """Answer over a connection that nobody else uses.

        Args:
            broker: The connection.
            fleet: Whose devices.
            now: Tells the time.
            let_in: Makes the broker let a device in that has just been enrolled, before that device is told.
        """
        self._let_in = let_in
        self._broker = broker
        self._fleet = fleet
        self._now = now
        self._events: SimpleQueue[BrokerEvent] = SimpleQueue()
        self._token = 0
        self.answered = 0
        self.refused = 0

    def start(self) -> None:
        """Begin to connect."""
        self._broker.start(self._events.put)

    def close(self) -> None:
        """Disconnect."""
        self._broker.stop()

    def step(self, seconds: float | None) -> bool:
        """Wait so long for something, and do it. Returns whether there was anything.

        Raises:
            BrokerError: The broker refuses the subscription.
            BrokerUnavailableError: It refuses the connection.
            StoreError: The fleet's folder cannot be used.
        """
        try:
            event = self._events.get(timeout=seconds)
        except Empty:
            return False
        match event:
            case Connected():
                branch = f"{ROOT}/{self._fleet.settings.cluster}/+"
                enrolling = f"{ROOT}/{self._fleet.settings.cluster}/_enroll/+/req"
                self._broker.subscribe(((f"{branch}/head/ask", 1), (f"{branch}/cert/ask", 1), (enrolling, 1)))
            case Subscribed() if any(code >= _REFUSED for code in event.reason_codes):
                raise BrokerError(
                    "the broker refuses the controller's subscription",
                    hint="Its access list must let the operator read there: see `edge fleet broker-config`.",
                )
            case Disconnected() if event.refused:
                raise BrokerUnavailableError(f"the broker refuses the connection: {event.reason}")
            case MessageReceived():
                self._answer(event)
            case _:
                pass
        return True

    def _answer(self, message: MessageReceived) -> None:
        try:
            answer = self._answer_to(message)
            if answer is not None:
                self._token += 1
                self._broker.publish(Publication(*answer, self._token, expiry_seconds=_ANSWER_SECONDS))
                self.answered += 1
        except StoreError:
            raise
        except EdgeError as error:
            # Whoever asks wrongly is told nothing; who runs the controller is.
            self.refused += 1
            _log.warning("%s: %s", message.topic, error)
        self._broker.acknowledge(message)

    def _answer_to(self, message: MessageReceived) -> tuple[str, bytes] | None:
        """Return the topic and the payload of an answer."""
        activation = parse_enrollment(message.topic)
        if activation is not None:
            return self._enroll(activation, message)
        found = parse_device(message.topic)
        match found:
            case (device, "head/ask"):
                return device.head, answer_head(self._fleet, device, message.payload, self._now())
            case (device, "cert/ask"):
                return device.certificate, answer_request(self._fleet, device, message.payload, self._now())
            case _:
                return None

    def _enroll(self, activation: ActivationTopics, message: MessageReceived) -> tuple[str, bytes] | None:
        if message.retain:
            # Left by somebody who is gone; a device that waits asks again.
            return None
        answered = answer_enrollment(self._fleet, activation, message.payload, self._now())
        if answered.enrolled is not None:
            self._let_in(answered.enrolled)
        return activation.answer, answered.payload
