"""A device's request for its identity, over the listener that takes activations.

Several devices may enrol by one activation at the same moment. They have one client id and interrupt one another, so
nobody stays connected longer than an answer takes, and everybody asks again.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from random import uniform
from typing import Final, assert_never

from edge.errors import BrokerUnavailableError, DeadlineError, RefusedError, TrustError
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES
from edge.model.enrollment import (
    ActivationId,
    DeviceIdentity,
    EnrollmentAnswer,
    EnrollmentRequest,
    EnrollmentStatus,
    derive_keys,
    derive_password,
    prove,
    read_answer,
)
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

ASK_SECONDS: Final = 5.0
"""After so long without an answer the request is sent again: the controller may not have been there."""
APPROVAL_SECONDS: Final = (5.0, 15.0)
"""Between two questions while an operator has to decide."""
_NEVER: Final = float("inf")
_REFUSED: Final = 0x80


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command was told.

    Attributes:
        device: The name wished for; empty for the one in `agent.toml`, or else the host's.
        host, port: The broker's listener for devices that enrol.
        ca_file: Who may have signed its certificate; None for no TLS (loopback tests only).
        force: Ask for a new identity though there is a good one.
        seconds: How long to try.
    """

    activation: ActivationId
    code: str = field(repr=False)
    host: str
    port: int
    ca_file: Path | None
    device: str = ""
    force: bool = False
    seconds: float = 120.0


class Request:
    """One run of the command: connects, asks, waits, for as long as it may take.

    Args:
        wish: What the command was told.
        device: The device's name.
        request: PKCS #10, PEM.
    """

    def __init__(self, wish: Wish, device: str, request: str) -> None:
        self._wish = wish
        self._device = device
        self._topics = wish.activation.topics
        self._keys = derive_keys(wish.activation, wish.code)
        self._nonce = secrets.token_hex(16)
        question = EnrollmentRequest(activation=str(wish.activation), device=device, nonce=self._nonce, request=request)
        self._question = prove(question, self._keys.request)
        self._deadline = time.monotonic() + wish.seconds
        self._problem = "no answer: does `edge controller run` run?"
        self._unavailable = False
        self._told: set[str] = set()
        self._tell: Callable[[str], None] = lambda _: None

    def made(
        self,
        brokers: Callable[[BrokerSettings], Broker],
        tell: Callable[[str], None],
        least_time: Callable[[], datetime | None],
    ) -> DeviceIdentity:
        """Return what the fleet gave.

        Args:
            brokers: Makes a connection.
            tell: Told what is waited for, each thing once.
            least_time: As `BrokerSettings.least_time`.

        Raises:
            RefusedError, TrustError, BrokerUnavailableError, DeadlineError: As `enroll`.
        """
        self._tell = tell
        settings = self._settings(least_time)
        while True:
            answer = self._connected(brokers(settings))
            match answer.status:
                case EnrollmentStatus.REFUSED:
                    raise RefusedError(f"the fleet refuses {self._device}: {answer.reason}")
                case EnrollmentStatus.ENROLLED:
                    if answer.identity is None or answer.identity.device != self._device:
                        raise TrustError(f"the fleet answered without an identity for {self._device}")
                    return answer.identity
                case EnrollmentStatus.PENDING:
                    self._problem = f"request {answer.enrollment[:16]} waits for an operator"
                    self._say(f"{self._problem}: edge fleet enrollment approve {answer.enrollment[:16]}")
                    self._pause(uniform(*APPROVAL_SECONDS))  # noqa: S311 - jitter is no secret
                case never:
                    assert_never(never)

    def _settings(self, least_time: Callable[[], datetime | None]) -> BrokerSettings:
        user = self._wish.activation.user
        return BrokerSettings(
            host=self._wish.host,
            port=self._wish.port,
            client_id=user,
            ca_file=self._wish.ca_file,
            username=user,
            password=derive_password(self._wish.activation, self._wish.code),
            session_expiry_seconds=0,
            maximum_packet_size=2 * MAXIMUM_DOCUMENT_BYTES,
            backoff_last_seconds=10.0,
            least_time=least_time,
        )

    def _connected(self, broker: Broker) -> EnrollmentAnswer:
        events: SimpleQueue[BrokerEvent] = SimpleQueue()
        broker.start(events.put)
        try:
            return self._answer(broker, events)
        finally:
            broker.stop()

    def _answer(self, broker: Broker, events: SimpleQueue[BrokerEvent]) -> EnrollmentAnswer:
        ask_at = _NEVER
        while (now := time.monotonic()) < self._deadline:
            if now >= ask_at:
                broker.publish(Publication(self._topics.request, self._question, token=0))
                ask_at = now + ASK_SECONDS
            try:
                event = events.get(timeout=min(self._deadline, ask_at) - now)
            except Empty:
                continue
            match event:
                case Connected():
                    self._unavailable = False
                    broker.subscribe(((self._topics.answer, 1),))
                case Subscribed():
                    ask_at = 0.0
                case Disconnected():
                    ask_at = _NEVER
                    self._lost(event)
                case MessageReceived():
                    broker.acknowledge(event)
                    if (answer := self._for_us(event)) is not None:
                        return answer
                case PublicationAcknowledged():
                    self._acknowledged(event)
                case never:
                    assert_never(never)
        raise self._too_late()

    def _for_us(self, message: MessageReceived) -> EnrollmentAnswer | None:
        answer = read_answer(message.payload, self._keys.answer)
        # Others may enrol by the same activation, and hear the same branch; what is old has another nonce.
        return answer if (answer.nonce, answer.device) == (self._nonce, self._device) else None

    def _acknowledged(self, event: PublicationAcknowledged) -> None:
        if event.reason_code >= _REFUSED:
            raise self._not_let_in(f"it does not take the request (0x{event.reason_code:02x})")

    def _lost(self, event: Disconnected) -> None:
        if event.refused:
            raise self._not_let_in(event.reason)
        self._unavailable = True
        self._problem = event.reason
        self._say(f"{self._wish.host}:{self._wish.port}: {event.reason}; trying again")

    def _not_let_in(self, reason: str) -> RefusedError:
        return RefusedError(
            f"{self._wish.host}:{self._wish.port} refuses activation {self._wish.activation}: {reason}",
            hint="Is the code right? Is it over, used up or revoked? Has Mosquitto read its lists since it was made?",
        )

    def _too_late(self) -> DeadlineError | BrokerUnavailableError:
        hint = "The same command goes on where this one ended."
        if self._unavailable:
            return BrokerUnavailableError(self._problem, hint=hint)
        return DeadlineError(f"not enrolled after {self._wish.seconds:g} s: {self._problem}", hint=hint)

    def _pause(self, seconds: float) -> None:
        time.sleep(max(0.0, min(seconds, self._deadline - time.monotonic())))
        if time.monotonic() >= self._deadline:
            raise self._too_late()

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(text)
