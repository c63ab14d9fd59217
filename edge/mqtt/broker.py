"""The MQTT broker as a port; `edge.mqtt.paho_broker` is the real one.

A broker connection lives in one background thread of its own, reconnects by itself with full jitter, and tells what
happened by calling `on_event` from that thread. Nothing here blocks the caller.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us when we vanish; `delay_seconds` is MQTT 5's Will Delay Interval."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True
    delay_seconds: int = 30


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Where the broker is and who we are.

    Attributes:
        ca_file: The certificates that may sign the broker's; None for a connection without TLS (loopback tests only).
        cert_file: Our certificate and `key_file` our key; None for TLS without a client certificate.
        username, password: For a broker that asks for them; empty for none.
        session_expiry_seconds: How long the broker keeps our subscriptions and queued messages while we are away;
            0 for a clean session (an operator's command line).
        receive_maximum: How many unacknowledged QoS 1 messages the broker may have under way to us.
        maximum_packet_size: Bytes; the broker drops what is larger before it reaches us.
        least_time: Returns the latest time known to have passed, or None while the machine's clock is known good.
            By it the broker's certificate is judged instead of by a clock that may be wrong; None believes the clock.
        backoff_first_seconds: Upper bound of the first reconnect delay; doubles up to `backoff_last_seconds`,
            each delay being uniform between 0 and the bound (full jitter).
    """

    host: str
    port: int
    client_id: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    keepalive_seconds: int = 60
    session_expiry_seconds: int = 7 * 24 * 3600
    receive_maximum: int = 16
    maximum_packet_size: int = 256 * 1024
    connect_timeout_seconds: float = 10.0
    backoff_first_seconds: float = 1.0
    backoff_last_seconds: float = 300.0
    least_time: Callable[[], datetime | None] | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A message to send.

    Attributes:
        token: Ours; comes back in `PublicationAcknowledged`.
        expiry_seconds: MQTT 5 Message Expiry Interval; None for none.
        correlation: MQTT 5 Correlation Data, echoed from a request.
    """

    topic: str
    payload: bytes
    token: int
    qos: int = 1
    retain: bool = False
    expiry_seconds: int | None = None
    content_type: str = "application/json"
    correlation: bytes = b""
    response_topic: str = ""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker accepted us.

    Attributes:
        session_present: It still had our session; subscriptions stand.
        receive_maximum: How many unacknowledged QoS 1 messages it takes from us.
        maximum_packet_size: The largest packet it takes, in bytes.
    """

    session_present: bool
    receive_maximum: int
    maximum_packet_size: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection ended, or could not be made.

    Attributes:
        reason: For a person.
        refused: The broker answered and said no (bad certificate, not authorised); it is tried again all the same.
        retry_seconds: When the next attempt is made; publications not yet acknowledged must be published again
            after the next `Connected`.
    """

    reason: str
    refused: bool
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message for us; it stays unacknowledged until `Broker.acknowledge(message)`."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int = 0
    response_topic: str = ""
    correlation: bytes = b""
    connection: int = 0
    """Which connection it came by; an acknowledgement for an earlier one is dropped, the broker sends it again."""


@dataclass(frozen=True, slots=True)
class PublicationAcknowledged:
    """The broker answered a QoS 1 publication; `reason_code` >= 0x80 is a refusal, 0x10 means nobody subscribed.

    A QoS 0 publication is answered when it was handed to the socket.
    """

    token: int
    reason_code: int


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The broker answered a subscription; `reason_codes` in the order of the filters, >= 0x80 is a refusal."""

    filters: tuple[str, ...]
    reason_codes: tuple[int, ...] = field(default=())


BrokerEvent = Connected | Disconnected | MessageReceived | PublicationAcknowledged | Subscribed


class Broker(Protocol):
    """A connection to an MQTT broker. All methods may be called from any thread, and from within `on_event`."""

    def start(self, on_event: Callable[[BrokerEvent], None], will: Will | None = None) -> None:
        """Begin to connect, and go on for ever; at most once."""
        ...

    def publish(self, publication: Publication) -> bool:
        """Hand a message to the connection; False when there is none now (publish again after `Connected`)."""
        ...

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> bool:
        """Subscribe to `(filter, qos)` pairs; False when there is no connection now."""
        ...

    def acknowledge(self, message: MessageReceived) -> None:
        """Send the PUBACK of a QoS 1 message: it was stored. Harmless when the connection is another one by now."""
        ...

    def set_will(self, will: Will) -> None:
        """Use this will from the next connection on."""
        ...

    def stop(self, farewell: Publication | None = None, timeout_seconds: float = 2.0) -> None:
        """Send `farewell`, wait for its acknowledgement at most so long, disconnect in order (no will), end."""
        ...
