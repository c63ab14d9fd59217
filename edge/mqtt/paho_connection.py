"""One connection to a broker, spoken by paho-mqtt.

Each connection has a paho client of its own, thrown away with it. paho keeps unacknowledged publications in memory
and sends them again by itself when a client reconnects; a new client has nothing to send again, so what is published
twice is decided by the caller alone, who has it on disk. The session (subscriptions, messages queued for us) lives
at the broker and does not care.

Only the thread that runs the loop touches this.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.mqtt.broker import (
    BrokerEvent,
    BrokerSettings,
    Connected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
    Will,
)
from edge.mqtt.wire import Wire

IMPLEMENTATION_SPECIFIC_ERROR: Final = 0x83
NOT_AUTHORIZED: Final = 0x87
TOPIC_NAME_INVALID: Final = 0x90
PACKET_TOO_LARGE: Final = 0x95
FAILURE: Final = 0x80
"""Reason codes of MQTT 5.0, section 2.4; from 0x80 on they are refusals."""

_LARGEST_PACKET: Final = 268_435_460
_LARGEST_RECEIVE_MAXIMUM: Final = 65_535
_MOST_UNASKED: Final = 2_000
_MOST_UNASKED_BYTES: Final = 16 * 1024 * 1024
"""Mosquitto sends a session that it resumes all that waits, whatever the Receive Maximum says (seen with 2.0.11; a
thousand messages by default): who hangs up for that never gets any further."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a connection is over; `refused` as in `Disconnected`."""

    reason: str
    refused: bool = False


class _Client(Client):
    """paho's client on a socket that we opened: its own opening blocks, through proxies found in the environment."""

    def __init__(self, wire: Wire, client_id: str) -> None:
        self._wire = wire
        super().__init__(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )

    def _create_socket(self) -> Wire:
        return self._wire


class Connection:
    """An MQTT 5 connection on a connected socket, from CONNECT on.

    Attributes:
        number: Tells this connection's messages from those of an earlier one.
        ready: The broker accepted us.
        ended: Why it is over; None while it lives.
    """

    def __init__(
        self, settings: BrokerSettings, number: int, wire: Wire, will: Will | None, emit: Callable[[BrokerEvent], None]
    ) -> None:
        self.number = number
        self.ready = False
        self.ended: Ended | None = None
        self._settings = settings
        self._wire = wire
        self._emit = emit
        self._answer_by = time.monotonic() + settings.connect_timeout_seconds
        self._pinged_at: float | None = None
        self._receive_maximum = _LARGEST_RECEIVE_MAXIMUM
        self._maximum_packet_size = _LARGEST_PACKET
        self._writing = False
        self._unacknowledged: dict[int, int] = {}
        self._unwritten: dict[int, int] = {}
        self._subscriptions: dict[int, tuple[str, ...]] = {}
        self._received: dict[int, int] = {}
        self._client = self._make_client(will)
        self._guarded(self._client.reconnect)

    def _make_client(self, will: Will | None) -> _Client:
        client = _Client(self._wire, self._settings.client_id)
        client.max_inflight_messages_set(0)  # the window is kept here, by the broker's Receive Maximum
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        # With this set, paho leaves all writing to our loop.
        client.on_socket_register_write = lambda *_: None
        if will is not None:
            delay = _properties(PacketTypes.WILLMESSAGE)
            delay.WillDelayInterval = will.delay_seconds
            client.will_set(will.topic, will.payload, will.qos, will.retain, delay)
        if self._settings.username:
            client.username_pw_set(self._settings.username, self._settings.password)
        options = _properties(PacketTypes.CONNECT)
        options.SessionExpiryInterval = self._settings.session_expiry_seconds
        options.ReceiveMaximum = self._settings.receive_maximum
        options.MaximumPacketSize = self._settings.maximum_packet_size
        client.connect_async(
            self._settings.host,
            self._settings.port,
            self._settings.keepalive_seconds,
            clean_start=self._settings.session_expiry_seconds == 0,
            properties=options,
        )
        return client

    # ---- what the loop needs

    def is_open(self) -> bool:
        """Say whether it has not ended."""
        return self.ended is None

    @property
    def buffered(self) -> bool:
        """Something can be read without waiting."""
        return self._wire.buffered

    @property
    def wants_write(self) -> bool:
        """Something waits to be written."""
        return self._client.want_write()

    @property
    def has_room(self) -> bool:
        """The broker takes one more QoS 1 publication."""
        return len(self._unacknowledged) < self._receive_maximum

    def fileno(self) -> int:
        """Return the socket's file descriptor."""
        return self._wire.fileno()

    def deadline(self) -> float:
        """Return the monotonic time at which `tend` must be called, if nothing happens before."""
        if not self.ready:
            return self._answer_by
        keepalive = self._client.keepalive  # the broker may have told us another than we asked for
        if keepalive == 0:
            return float("inf")
        if self._pinged_at is not None and self._wire.last_received < self._pinged_at:
            return self._pinged_at + keepalive / 2
        return min(self._wire.last_received, self._wire.last_sent) + keepalive

    def tend(self) -> None:
        """Do what is due by time: give up on an answer, or ping."""
        now = time.monotonic()
        if now < self.deadline():
            return
        if not self.ready:
            self._end(Ended("the broker did not answer in time"))
        elif self._pinged_at is not None and self._wire.last_received < self._pinged_at:
            self._end(Ended("the broker does not answer any more (keepalive)"))
        else:
            # paho's own bookkeeping is never ahead of the wire's, so that it pings now.
            self._pinged_at = now
            self._guarded(self._client.loop_misc)

    def read(self) -> None:
        """Take in what has arrived."""
        self._guarded(self._client.loop_read)
        while self.ended is None and self._wire.buffered:
            self._guarded(self._client.loop_read)

    def write(self) -> None:
        """Write what the socket takes."""
        self._writing = True
        try:
            self._guarded(self._client.loop_write)
        finally:
            self._writing = False

    # ---- what the caller wants

    def publish(self, publication: Publication) -> None:
        """Send it; what cannot be sent is answered at once with a reason code."""
        refusal = self._send(publication)
        if refusal is not None:
            self._emit(PublicationAcknowledged(publication.token, refusal))

    def _send(self, publication: Publication) -> int | None:
        properties = _publish_properties(publication)
        try:
            if _packet_size(publication, properties) > self._maximum_packet_size:
                return PACKET_TOO_LARGE
            # A packet id still in use after 65,535 others is skipped.
            for _ in range(len(self._unacknowledged) + 1):
                info = self._client.publish(
                    publication.topic, publication.payload, publication.qos, publication.retain, properties
                )
                if info.rc != MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                    waiting = self._unacknowledged if publication.qos else self._unwritten
                    waiting[info.mid] = publication.token
                    return None
        except ValueError as error:
            _log.warning("cannot publish to %r: %s", publication.topic, error)
            return TOPIC_NAME_INVALID
        except Exception as error:  # noqa: BLE001 -- paho's packing raises whatever struct does
            _log.warning("cannot publish to %r: %s", publication.topic, error)
        return IMPLEMENTATION_SPECIFIC_ERROR

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        """Send a SUBSCRIBE for all of them."""
        names = tuple(name for name, _ in filters)
        try:
            _, mid = self._client.subscribe([(name, SubscribeOptions(qos=qos)) for name, qos in filters])
        except ValueError as error:
            _log.warning("cannot subscribe to %s: %s", names, error)
            mid = None
        if mid is None:
            self._emit(Subscribed(names, tuple(FAILURE for _ in names)))
        else:
            self._subscriptions[mid] = names

    def acknowledge(self, message: MessageReceived) -> None:
        """Send the PUBACK, once, and only for a message of this connection."""
        if message.connection == self.number and message.packet_id in self._received:
            del self._received[message.packet_id]
            self._guarded(lambda: self._client.ack(message.packet_id, 1))

    def is_idle(self) -> bool:
        """Nothing is unanswered and nothing unwritten."""
        return not self._unacknowledged and not self._client.want_write()

    def disconnect(self) -> None:
        """Say good-bye: the broker drops the will."""
        self._wire.farewell()
        self._guarded(self._client.disconnect)
        self.write()

    # ---- what paho tells

    def _guarded(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 -- malformed packets raise struct.error, IndexError and others
            self._end(Ended(f"the broker broke the protocol: {type(error).__name__}: {error}"))
        if self._client.socket() is None:
            self._end(Ended(self._wire.failure or "the connection ended", self._wire.refused))

    def _end(self, why: Ended) -> None:
        if self.ended is None:
            self.ended = why

    def _on_connect(
        self, _client: Client, _userdata: Any, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._end(Ended(f"the broker refused us: {_words(reason, properties)}", refused=True))
            return
        self._receive_maximum = getattr(properties, "ReceiveMaximum", _LARGEST_RECEIVE_MAXIMUM)
        self._maximum_packet_size = getattr(properties, "MaximumPacketSize", _LARGEST_PACKET)
        self.ready = True
        self._emit(Connected(flags.session_present, self._receive_maximum, self._maximum_packet_size))

    def _on_disconnect(
        self, _client: Client, _userdata: Any, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            refused = reason.value == NOT_AUTHORIZED
            self._end(Ended(f"the broker ended the connection: {_words(reason, properties)}", refused))
        else:
            self._end(Ended(self._wire.failure or str(reason), self._wire.refused))

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        if message.qos:
            self._received[message.mid] = len(message.payload)
            count, size = len(self._received), sum(self._received.values())
            if count > self._settings.receive_maximum and (count > _MOST_UNASKED or size > _MOST_UNASKED_BYTES):
                self._end(Ended("the broker sent far more messages than the Receive Maximum we announced"))
                return
        self._emit(
            MessageReceived(
                topic=message.topic,
                payload=bytes(message.payload),
                qos=message.qos,
                retain=message.retain,
                packet_id=message.mid,
                response_topic=getattr(message.properties, "ResponseTopic", ""),
                correlation=getattr(message.properties, "CorrelationData", b""),
                connection=self.number,
            )
        )

    def _on_publish(
        self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        # paho numbers QoS 0 and QoS 1 alike and tells of QoS 0 while it writes, of QoS 1 while it reads.
        token = (self._unwritten if self._writing else self._unacknowledged).pop(mid, None)
        if token is not None:
            self._emit(PublicationAcknowledged(token, reason.value))

    def _on_subscribe(
        self, _client: Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Properties
    ) -> None:
        filters = self._subscriptions.pop(mid, None)
        if filters is not None:
            self._emit(Subscribed(filters, tuple(reason.value for reason in reasons)))


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _words(reason: ReasonCode, properties: Properties | None) -> str:
    said = getattr(properties, "ReasonString", "")
    return f"{reason} (0x{reason.value:02x})" + (f": {said}" if said else "")


def _publish_properties(publication: Publication) -> Properties:
    properties = _properties(PacketTypes.PUBLISH)
    if publication.content_type:
        properties.ContentType = publication.content_type
    if publication.expiry_seconds is not None:
        properties.MessageExpiryInterval = publication.expiry_seconds
    if publication.correlation:
        properties.CorrelationData = publication.correlation
    if publication.response_topic:
        properties.ResponseTopic = publication.response_topic
    return properties


def _packet_size(publication: Publication, properties: Properties) -> int:
    # MQTT 5.0, sections 2.1 and 3.3: fixed header, topic, packet id, properties, payload.
    rest = 2 + len(publication.topic.encode()) + (2 if publication.qos else 0)
    rest += len(properties.pack())  # type: ignore[no-untyped-call]
    rest += len(publication.payload)
    length_bytes = next(count for count in (1, 2, 3, 4, 5) if rest < 128**count)
    return 1 + length_bytes + rest
