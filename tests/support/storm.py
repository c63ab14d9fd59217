"""A broker that goes away under many devices at once, and how they come back: real clients, a real Mosquitto."""

import threading
import time
from dataclasses import dataclass

from edge.mqtt.backoff import Backoff
from edge.mqtt.broker import BrokerEvent, BrokerSettings, Connected
from edge.mqtt.paho_broker import PahoBroker
from tests.support.mosquitto import Mosquitto


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When each client was connected again, in seconds since the broker was back; those without jitter apart."""

    devices: tuple[float, ...]
    unison: tuple[float, ...]

    @staticmethod
    def most_within(moments: tuple[float, ...], seconds: float) -> int:
        """The most that came within any stretch of time so long."""
        return max(sum(begin <= one < begin + seconds for one in moments) for begin in moments)


class _Client:
    def __init__(self, settings: BrokerSettings, changed: threading.Condition) -> None:
        self.broker = PahoBroker(settings)
        self.connected: list[float] = []
        self._changed = changed

    def hear(self, event: BrokerEvent) -> None:
        if isinstance(event, Connected):
            with self._changed:
                self.connected.append(time.monotonic())
                self._changed.notify_all()


def storm(
    server: Mosquitto, devices: list[BrokerSettings], unison: list[BrokerSettings], down: float, patience: float
) -> Arrivals:
    """Connect all, kill the broker, start it again after `down` seconds, and wait until everybody is back.

    Args:
        server: Running.
        devices: Who connects as devices do.
        unison: Who connects likewise, but without jitter: each delay is the whole bound.
        down: Seconds.
        patience: Seconds after which somebody who is not back is lost.
    """
    changed = threading.Condition()
    clients = [_Client(settings, changed) for settings in (*devices, *unison)]
    for client in clients[len(devices) :]:
        client.broker._backoff = Backoff(1.0, 300.0, lambda _, bound: bound)
    try:
        for client in clients:
            client.broker.start(client.hear)
        _await(clients, 1, changed, patience)
        server.kill()
        time.sleep(down)
        server.start()
        back = time.monotonic()
        _await(clients, 2, changed, patience)
    finally:
        for client in clients:
            client.broker.stop(timeout_seconds=0.1)
    moments = [client.connected[1] - back for client in clients]
    return Arrivals(tuple(moments[: len(devices)]), tuple(moments[len(devices) :]))


def _await(clients: list[_Client], times: int, changed: threading.Condition, patience: float) -> None:
    end = time.monotonic() + patience
    with changed:
        while missing := sum(len(client.connected) < times for client in clients):
            left = end - time.monotonic()
            assert left > 0, f"{missing} of {len(clients)} are not there after {patience:.0f} s"
            changed.wait(left)
