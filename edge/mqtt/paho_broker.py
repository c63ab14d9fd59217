"""The broker port on paho-mqtt: MQTT 5, TLS, one thread, one poll, no timer that ticks.

The thread sleeps until the socket has something, somebody wants something written, or a keepalive or reconnect is
due; an idle connection wakes it twice in a keepalive interval (PINGREQ out, PINGRESP in).
"""

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Final

from edge.errors import BrokerError, BrokerUnavailableError
from edge.mqtt.backoff import Backoff
from edge.mqtt.broker import (
    BrokerEvent,
    BrokerSettings,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Will,
)
from edge.mqtt.dial import dial
from edge.mqtt.paho_connection import Connection, Ended
from edge.mqtt.wire import Wire

MAXIMUM_WAITING: Final = 4096
"""Publications accepted and not yet sent (the broker's Receive Maximum is used up); more are answered 0x97."""
QUOTA_EXCEEDED: Final = 0x97
_BATCH: Final = 32
_NEVER: Final = float("inf")

_log = logging.getLogger(__name__)
_Request = Callable[[Connection], None]


class _StoppedError(Exception):
    """`stop` was called while a connection was being made."""


class PahoBroker:
    """A `Broker` that is a real one. See the port for the contract of each method."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._backoff = Backoff(settings.backoff_first_seconds, settings.backoff_last_seconds)
        self._lock = threading.Lock()
        self._requests: deque[_Request] = deque()
        self._waiting: deque[Publication] = deque()
        self._ready = False
        self._will: Will | None = None
        self._stop_by: float | None = None
        self._connections = 0
        self._on_event: Callable[[BrokerEvent], None] = lambda _: None
        self._thread: threading.Thread | None = None
        self._woken, self._waker = -1, -1

    # ---- the port; any thread

    def start(self, on_event: Callable[[BrokerEvent], None], will: Will | None = None) -> None:
        """Begin to connect, and go on for ever; at most once."""
        if self._thread is not None:
            raise BrokerError("this broker connection was started before")
        self._on_event = on_event
        self._will = will
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    def publish(self, publication: Publication) -> bool:
        """Hand a message to the connection; False when there is none now."""
        with self._lock:
            if not self._ready or self._stop_by is not None:
                return False
            if len(self._waiting) < MAXIMUM_WAITING:
                self._waiting.append(publication)
            else:
                refusal = PublicationAcknowledged(publication.token, QUOTA_EXCEEDED)
                self._requests.append(lambda _: self._emit(refusal))
            self._wake()
        return True

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> bool:
        """Subscribe to `(filter, qos)` pairs; False when there is no connection now."""
        return self._request(lambda connection: connection.subscribe(filters))

    def acknowledge(self, message: MessageReceived) -> None:
        """Send the PUBACK of a QoS 1 message; harmless when its connection is gone."""
        if message.qos:
            self._request(lambda connection: connection.acknowledge(message))

    def set_will(self, will: Will) -> None:
        """Use this will from the next connection on."""
        with self._lock:
            self._will = will

    def stop(self, farewell: Publication | None = None, timeout_seconds: float = 2.0) -> None:
        """Send `farewell`, wait for its acknowledgement at most so long, disconnect in order (no will), end."""
        with self._lock:
            if self._stop_by is None:
                self._stop_by = time.monotonic() + timeout_seconds
                if farewell is not None and self._ready:
                    self._waiting.append(farewell)
            self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            # Only a name look-up cannot be interrupted; the thread ends by itself after it.
            self._thread.join(timeout_seconds + 1.0)

    def _request(self, request: _Request) -> bool:
        with self._lock:
            if not self._ready:
                return False
            self._requests.append(request)
            self._wake()
        return True

    def _wake(self) -> None:
        # Under the lock, so that the descriptor is ours; when the pipe is full, the thread is about to wake anyway.
        if self._waker >= 0:
            with suppress(BlockingIOError):
                os.write(self._waker, b"\0")

    def _is_stopping(self) -> bool:
        return self._stop_by is not None

    # ---- the thread

    def _run(self) -> None:
        try:
            while not self._is_stopping():
                ended = self._connect_and_serve()
                if self._is_stopping():
                    return
                delay = self._backoff.next_delay()
                self._emit(Disconnected(ended.reason, ended.refused, delay))
                self._sleep(delay)
        except _StoppedError:
            return
        finally:
            self._disconnected()
            with self._lock:
                os.close(self._woken)
                os.close(self._waker)
                self._woken = self._waker = -1

    def _connect_and_serve(self) -> Ended:
        try:
            with closing(Wire(dial(self._settings, self._wait), self._settings.maximum_packet_size)) as wire:
                return self._speak(wire)
        except BrokerError as error:
            return Ended(str(error), refused=not isinstance(error, BrokerUnavailableError))
        except _StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 -- a device that gives up connecting is lost: log it and try again
            _log.exception("the connection to the broker failed")
            return Ended(f"{type(error).__name__}: {error}")
        finally:
            self._disconnected()

    def _speak(self, wire: Wire) -> Ended:
        self._connections += 1
        with self._lock:
            will = self._will
        connection = Connection(self._settings, self._connections, wire, will, self._emit)
        began = time.monotonic()
        ended = self._serve(connection)
        if connection.ready and time.monotonic() - began >= self._settings.keepalive_seconds:
            self._backoff.reset()
        return ended

    def _disconnected(self) -> None:
        # What waits is the caller's to publish again after the next `Connected`.
        with self._lock:
            self._ready = False
            self._waiting.clear()
            self._requests.clear()

    def _serve(self, connection: Connection) -> Ended:
        while connection.is_open():
            self._hand_over(connection)
            # Written first: what is still unwritten would keep us here until the last moment.
            if connection.is_open() and connection.wants_write:
                connection.write()
            if self._may_leave(connection):
                connection.disconnect()
                raise _StoppedError
            if connection.is_open():
                self._await_one(connection)
        return connection.ended or Ended("the connection ended")

    def _may_leave(self, connection: Connection) -> bool:
        if self._stop_by is None or not connection.is_open():
            return False
        done = not connection.ready or (not self._waiting and connection.is_idle())
        return done or time.monotonic() >= self._stop_by

    def _hand_over(self, connection: Connection) -> None:
        # What paho was given and the socket has not taken lies in paho's memory: give it no more until it is written.
        room = 0 if connection.wants_write else _BATCH
        while connection.ready and connection.is_open():
            with self._lock:
                if self._requests:
                    request = self._requests.popleft()
                elif room and self._may_publish(connection):
                    request = self._publishing(self._waiting.popleft())
                    room -= 1
                else:
                    return
            request(connection)

    def _may_publish(self, connection: Connection) -> bool:
        return bool(self._waiting) and (connection.has_room or not self._waiting[0].qos)

    def _has_work(self, connection: Connection) -> bool:
        if not connection.ready:
            return False
        with self._lock:
            return bool(self._requests) or (not connection.wants_write and self._may_publish(connection))

    @staticmethod
    def _publishing(publication: Publication) -> _Request:
        return lambda connection: connection.publish(publication)

    def _await_one(self, connection: Connection) -> None:
        deadline = 0.0 if self._has_work(connection) else min(connection.deadline(), self._stop_by or _NEVER)
        events = select.POLLIN | (select.POLLOUT if connection.wants_write else 0)
        ready = self._poll(connection.fileno(), events, deadline)
        if ready & ~select.POLLOUT:
            connection.read()
        if connection.is_open():
            connection.tend()

    def _poll(self, descriptor: int, events: int, deadline: float) -> int:
        """Sleep until the descriptor is ready, somebody woke us, or it is time; return the descriptor's events."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if descriptor >= 0:
            poll.register(descriptor, events)
        left = max(0.0, deadline - time.monotonic())
        # Rounded up: waking a moment too early would mean a second sleep.
        ready = dict(poll.poll(None if left == _NEVER else int(left * 1000) + 1))
        if self._woken in ready:
            os.read(self._woken, 4096)
        return ready.get(descriptor, 0)

    def _wait(self, descriptor: int, events: int, deadline: float) -> None:
        while True:
            # Looked at before each sleep: an earlier one may have taken the wake-up.
            if self._is_stopping():
                raise _StoppedError
            if self._poll(descriptor, events, deadline):
                return
            if time.monotonic() >= deadline:
                raise TimeoutError

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_stopping() and time.monotonic() < deadline:
            self._poll(-1, 0, deadline)

    def _emit(self, event: BrokerEvent) -> None:
        if isinstance(event, Connected):
            with self._lock:
                self._ready = True
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001 -- it is the caller's, and must not end the connection
            _log.exception("a callback failed on %s", type(event).__name__)
