"""From the outbox to the broker: what is new first, what waited on the disk beside it, nothing gone before its PUBACK.

One thread that sleeps until there is something to send, an answer, or a time that was set. Blocks go out as they are:
compressed once, when they were made.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, assert_never

from edge.agent.telemetry.boot_clocks import BootClocks
from edge.agent.telemetry.ports import Waiting
from edge.model.records import Block
from edge.model.telemetry import encode_block, split_block
from edge.model.topics import Topics
from edge.mqtt.broker import (
    Broker,
    BrokerEvent,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
)

_log = logging.getLogger(__name__)

FIRST_TOKEN: Final = 1 << 40
"""Tokens of the drain's publications; the engine's uplink counts from 1."""
WINDOW: Final = 16
BACKLOG_SHARE: Final = 4
"""Of the window, that the backlog leaves to what is new."""
LEFT_TO_OTHERS: Final = 4
"""Of the broker's Receive Maximum: what the engine says must not wait behind telemetry."""
BACKLOG_BYTES_PER_SECOND: Final = 4 * 1024 * 1024
REFUSED: Final = 0x80
NO_MATCHING_SUBSCRIBERS: Final = 0x10
PACKET_TOO_LARGE: Final = 0x95
_OVERHEAD: Final = 512
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
_LONGEST_UNSUBSCRIBED: Final = 30.0
"""Whoever begins to collect wants to see something."""
CONTENT_TYPE: Final = "application/vnd.edge.records.v1+zlib"


@dataclass(slots=True)
class _Sent:
    """A block on its way, in one message or in several."""

    block: Block
    historical: bool
    tokens: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """How it sends.

    Attributes:
        backlog_bytes_per_second: What waited on the disk is sent no faster than this.
        keep_unsubscribed: A block that the broker took and threw away, because nobody has subscribed, is kept and sent
            again; False: it counts as delivered.
    """

    backlog_bytes_per_second: int = BACKLOG_BYTES_PER_SECOND
    keep_unsubscribed: bool = True


class Drain:
    """Sends until `close`; `hear` and `wake` may be called from any thread."""

    def __init__(  # noqa: PLR0913 - wired in one place
        self,
        outbox: Waiting,
        broker: Broker,
        topics: Topics,
        clocks: BootClocks,
        *,
        settings: DrainSettings = DrainSettings(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._topics = topics
        self._clocks = clocks
        self._settings = settings
        self._monotonic = monotonic
        self._random = random.Random()  # noqa: S311 - jitter is no secret
        self._changed = threading.Condition()
        self._news = False
        self._heard: list[BrokerEvent] = []
        self._closed = False
        self._connected = False
        self._window = WINDOW
        self._largest = 0
        self._token = FIRST_TOKEN
        self._sent: dict[int, _Sent] = {}
        self._not_before = 0.0
        self._refusals = 0
        self._backlog_at = 0.0
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hear(self, event: BrokerEvent) -> bool:
        """Take what the broker's thread says; returns whether it was for the drain alone."""
        match event:
            case Connected() | Disconnected():
                alone = False
            case PublicationAcknowledged() if event.token >= FIRST_TOKEN:
                alone = True
            case PublicationAcknowledged() | MessageReceived() | Subscribed():
                return False
            case _:
                assert_never(event)
        with self._changed:
            self._heard.append(event)
            self._changed.notify()
        return alone

    def wake(self) -> None:
        """There is something new in the outbox."""
        with self._changed:
            self._news = True
            self._changed.notify()

    def close(self) -> None:
        """Send nothing more; what was not acknowledged is handed back to the outbox."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._outbox.returned_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not (self._heard or self._news or self._closed):
                    self._changed.wait(self._patience())
                heard, self._heard = self._heard, []
                self._news = False
                if self._closed:
                    return
            try:
                for event in heard:
                    self._take(event)
                self._send()
            except Exception:  # noqa: BLE001 - see below
                # A defect of ours must not end telemetry for good, nor turn in circles.
                _log.exception("telemetry could not be sent")
                self._not_before = self._monotonic() + _LONGEST_PAUSE

    def _patience(self) -> float | None:
        if not self._connected:
            return None
        now = self._monotonic()
        times = [self._not_before] if self._not_before > now else [self._outbox.next_due(), self._backlog_at]
        due = [max(0.001, moment - now) for moment in times if moment is not None and moment > now]
        return min(due, default=None)

    # --- what the broker says

    def _take(self, event: BrokerEvent) -> None:
        match event:
            case Connected():
                self._connected = True
                self._window = max(1, min(WINDOW, event.receive_maximum - LEFT_TO_OTHERS))
                self._largest = event.maximum_packet_size
                self._not_before, self._refusals = 0.0, 0
            case Disconnected():
                self._connected = False
                self._return_all()
            case PublicationAcknowledged():
                self._answered(event)
            case _:
                pass

    def _answered(self, event: PublicationAcknowledged) -> None:
        sent = self._sent.pop(event.token, None)
        if sent is None:
            return
        unsubscribed = event.reason_code == NO_MATCHING_SUBSCRIBERS and self._settings.keep_unsubscribed
        if event.reason_code >= REFUSED or unsubscribed:
            self._refused(sent, event.reason_code)
            return
        self._refusals, self.problem = 0, ""
        sent.tokens.discard(event.token)
        if not sent.tokens:
            self._outbox.acknowledged(sent.block)

    def _refused(self, sent: _Sent, code: int) -> None:
        """Hand the block back, and wait: longer with each refusal, so that a broker that wants nothing has peace."""
        for token in sent.tokens:
            self._sent.pop(token, None)
        self._outbox.returned(sent.block)
        if code == PACKET_TOO_LARGE:
            self._largest = max(4096, len(sent.block.payload) // 2)
        if self._monotonic() >= self._not_before:
            # A whole window may be refused at once, and is one refusal.
            self._refusals += 1
            longest = _LONGEST_UNSUBSCRIBED if code == NO_MATCHING_SUBSCRIBERS else _LONGEST_PAUSE
            pause = self._random.uniform(0.5, 1.0) * min(longest, _FIRST_PAUSE * 2**self._refusals)
            self._not_before = self._monotonic() + pause
        what = "nobody has subscribed to it" if code == NO_MATCHING_SUBSCRIBERS else f"reason code 0x{code:02x}"
        problem = f"the broker does not take {sent.block.stream}: {what}"
        if problem != self.problem:
            _log.warning("%s; it is kept", problem)
        self.problem = problem

    def _return_all(self) -> None:
        self._sent.clear()
        self._outbox.returned_all()

    # --- sending

    def _send(self) -> None:
        # After a refusal one block asks whether the rest may come: a link may be paid for by the byte.
        window = 1 if self._refusals else self._window
        while self._connected and len(self._sent) < window and self._monotonic() >= self._not_before:
            historical = False
            block = self._outbox.next_live()
            if block is None and len(self._sent) < max(1, window - BACKLOG_SHARE):
                block, historical = self._backlog(), True
            if block is None or not self._publish(block, historical=historical):
                return

    def _backlog(self) -> Block | None:
        """The next block from the disk, if the rate allows one now."""
        now = self._monotonic()
        if self._backlog_at > now:
            return None
        block = self._outbox.next_backlog()
        if block is not None:
            spent = len(block.payload) / self._settings.backlog_bytes_per_second
            self._backlog_at = max(self._backlog_at, now - 0.1) + spent
        return block

    def _publish(self, block: Block, *, historical: bool) -> bool:
        sent = _Sent(block, historical)
        for part in self._parts(block):
            self._token += 1
            sent.tokens.add(self._token)
            self._sent[self._token] = sent
            payload = encode_block(part, historical=historical, clock=self._clocks.of(part.boot_id))
            publication = Publication(
                self._topics.telemetry(part.stream), payload, self._token, content_type=CONTENT_TYPE
            )
            if not self._broker.publish(publication):
                for token in sent.tokens:
                    self._sent.pop(token, None)
                # Before the block is back, which wakes this thread: there is nothing to do until the next `Connected`.
                self._connected = False
                self._outbox.returned(block)
                return False
        return True

    def _parts(self, block: Block) -> list[Block]:
        parts, waiting = list[Block](), [block]
        while waiting:
            one = waiting.pop(0)
            if not self._largest or len(one.payload) + _OVERHEAD + 512 <= self._largest or one.count == 1:
                parts.append(one)
            else:
                waiting[:0] = split_block(one)
        return parts
