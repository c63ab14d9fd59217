"""Collects a broker connection's events and waits for the one a test is about."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from edge.mqtt.broker import BrokerEvent, MessageReceived

Event = TypeVar("Event", bound=BrokerEvent)


class Recorder:
    """An `on_event`. Each event is handed out by `wait` once, those of a kind in order."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.events: list[BrokerEvent] = []
        self._left: list[BrokerEvent] = []

    def __call__(self, event: BrokerEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._left.append(event)
            self._changed.notify_all()

    def wait(
        self, kind: type[Event], matching: Callable[[Event], bool] = lambda _: True, seconds: float = 10.0
    ) -> Event:
        """The first event of this kind that was not handed out yet."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for index, event in enumerate(self._left):
                    if isinstance(event, kind) and matching(event):
                        del self._left[index]
                        return event
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    raise AssertionError(f"no {kind.__name__} in {seconds} s; there was {self.events}")

    def messages(self) -> list[MessageReceived]:
        """All messages so far."""
        with self._changed:
            return [event for event in self.events if isinstance(event, MessageReceived)]
