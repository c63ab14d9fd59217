"""What the device says, in the order and at the rate the broker can take it.

State is conflated (only the newest `reported` counts), events and answers are kept in the store until the broker has
acknowledged them. After each connection: status, birth, reported, acknowledgement of the revision, answers, events.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from edge.agent.engine.reports import encode
from edge.agent.store.state import Change, StateStore, StoredCommand
from edge.model.documents import MAXIMUM_DOCUMENT_BYTES, CommandResult, RevisionAck
from edge.model.start_profile import StartProfile
from edge.model.start_profiles_document import encode_profiles
from edge.model.topics import Topics, parse_device
from edge.mqtt.broker import Broker, Connected, Publication, PublicationAcknowledged

_log = logging.getLogger(__name__)

EVENT_WINDOW: Final = 16
"""Events under way to the broker at once; the smaller of this and the broker's Receive Maximum counts."""
REFUSED: Final = 0x80
"""MQTT 5: a reason code from here on says no."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a token stands for; `done` is what the store forgets or notes when the broker has it."""

    what: str
    event: int = 0
    command: StoredCommand | None = None


class Uplink:
    """Publishes; only the engine's thread touches it."""

    def __init__(self, broker: Broker, topics: Topics, store: StateStore, reported: Callable[[int], bytes]) -> None:
        self._broker = broker
        self._topics = topics
        self._store = store
        self._make_reported = reported
        self._connected = False
        self._window = EVENT_WINDOW
        self._maximum_bytes = MAXIMUM_DOCUMENT_BYTES
        self._token = 0
        self._sent: dict[int, _Sent] = {}
        self._reported_due = True
        self._ack: bytes | None = None
        self._profiles: tuple[StartProfile, ...] = ()
        self._profiles_due = False
        self._ack_due = False
        self._answers: dict[str, StoredCommand] = {c.id: c for c in store.undelivered_commands()}
        self._last_event = 0
        self._parked = False

    @property
    def connected(self) -> bool:
        """Whether the broker takes messages now."""
        return self._connected

    def connection_made(self, event: Connected, status: bytes, birth: bytes) -> None:
        """Say everything that may have changed while nobody listened."""
        self._connected = True
        self._parked = False
        self._window = max(1, min(EVENT_WINDOW, event.receive_maximum - 4))
        self._maximum_bytes = min(MAXIMUM_DOCUMENT_BYTES, event.maximum_packet_size or MAXIMUM_DOCUMENT_BYTES) - 512
        self._sent.clear()
        self._last_event = 0
        self._reported_due = True
        self._ack_due = self._ack is not None
        self._profiles_due = bool(self._profiles)
        self._answers = {c.id: c for c in self._store.undelivered_commands()}
        self._publish(self._topics.status, status, _Sent("status"), retain=True)
        self._publish(self._topics.birth, birth, _Sent("birth"), retain=True)

    def connection_lost(self) -> None:
        """Nothing that was under way counts as said."""
        self._connected = False
        self._sent.clear()

    def birth_changed(self, birth: bytes) -> None:
        """Say anew what this device is, if somebody listens; the next connection says it anyway."""
        if self._connected:
            self._publish(self._topics.birth, birth, _Sent("birth"), retain=True)

    def tasks_changed(self) -> None:
        """What was reported is not true any more."""
        self._reported_due = True

    def profiles_changed(self, profiles: tuple[StartProfile, ...]) -> None:
        """What images read when they start is better known than before."""
        if profiles != self._profiles:
            self._profiles = profiles
            self._profiles_due = True

    def acknowledge_revision(self, ack: RevisionAck) -> None:
        """Say what became of a revision; the newest answer replaces one that was not said yet."""
        # `revision` is told as null when it could not be read.
        self._ack = encode({"revision": None, **ack.to_wire()})
        self._ack_due = True

    def answer(self, command: StoredCommand) -> None:
        """Say what became of a command; also again, when it came twice."""
        self._answers[command.id] = command

    def refuse(self, result: CommandResult) -> None:
        """Answer a command that was not accepted: said once, kept nowhere."""
        if self._connected:
            self._publish(self._topics.result(result.op, result.id), encode(result.to_wire()), _Sent("refusal"))

    def ask(self, question: bytes) -> None:
        """Ask what the newest revision is: said once, and again with the next connection."""
        self._publish(self._topics.head_question, question, _Sent("question"))

    def acknowledged(self, event: PublicationAcknowledged, change: Change) -> None:
        """The broker has something, or refused it."""
        sent = self._sent.pop(event.token, None)
        if sent is None:
            return
        if event.reason_code >= REFUSED:
            _log.warning("the broker refused our %s (reason code 0x%02x)", sent.what, event.reason_code)
            self._parked = self._parked or bool(sent.event)
            return
        if sent.event:
            change.delivered.append(sent.event)
        elif sent.command is not None:
            current = self._store.command(sent.command.id)
            if current is not None and current.status is sent.command.status:
                change.commands[current.id] = replace(current, delivered=True)

    def pump(self, *, stored: bool = True) -> None:
        """Publish what is due, as far as the window goes.

        While the store takes nothing (`stored` is False) only the state is told: an answer or an event that is not
        kept could not be said again.
        """
        if not self._connected:
            return
        if self._reported_due and not self._under_way("reported"):
            self._reported_due = not self._publish(
                self._topics.reported, self._make_reported(self._maximum_bytes), _Sent("reported"), retain=True
            )
        if self._ack_due and self._ack is not None:
            self._ack_due = not self._publish(self._topics.desired_ack, self._ack, _Sent("ack"), retain=True)
        if self._profiles_due and not self._under_way("profiles"):
            told = encode_profiles(self._profiles, self._maximum_bytes)
            self._profiles_due = not self._publish(self._topics.profiles, told, _Sent("profiles"), retain=True)
        if not stored:
            return
        for command in list(self._answers.values()):
            if self._send_answer(command):
                del self._answers[command.id]
        self._pump_events()

    def _pump_events(self) -> None:
        room = self._window - sum(1 for sent in self._sent.values() if sent.event)
        if self._parked or room <= 0:
            return
        for event in self._store.events(self._last_event, room):
            if not self._publish(event.topic, event.payload, _Sent("event", event=event.seq)):
                return
            self._last_event = event.seq

    def _send_answer(self, command: StoredCommand) -> bool:
        result = CommandResult(
            id=command.id, op=command.op, status=command.status, result=dict(command.result), reason=command.reason
        )
        own = self._topics.result(command.op, command.id)
        elsewhere = command.response_topic
        return self._publish(
            elsewhere if self._is_own_result(elsewhere) else own,
            encode(result.to_wire()),
            _Sent("answer", command=command),
            correlation=command.correlation,
        )

    def _is_own_result(self, topic: str) -> bool:
        """A Response Topic is honoured inside the device's own branch only, whatever a request asks for."""
        parsed = parse_device(topic)
        return parsed is not None and parsed[0] == self._topics and parsed[1].startswith("res/")

    def _under_way(self, what: str) -> bool:
        return any(sent.what == what for sent in self._sent.values())

    def _publish(
        self, topic: str, payload: bytes, sent: _Sent, *, retain: bool = False, correlation: bytes = b""
    ) -> bool:
        self._token += 1
        self._sent[self._token] = sent
        publication = Publication(topic, payload, self._token, retain=retain, correlation=correlation)
        if self._broker.publish(publication):
            return True
        del self._sent[self._token]
        return False
