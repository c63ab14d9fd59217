"""A real outbox that drains through a proxy into a real Mosquitto, and a real consumer that keeps what arrives."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.agent.adapters.clock import SystemClock
from edge.agent.store.outbox import Outbox
from edge.agent.telemetry.boot_clocks import BootClocks
from edge.agent.telemetry.drain import Drain
from edge.errors import BrokerUnavailableError
from edge.fleet.telemetry_collect import TelemetryCollector
from edge.fleet.telemetry_store import TelemetryStore
from edge.model.records import STREAMS
from edge.model.topics import Topics
from edge.mqtt.broker import BrokerEvent, BrokerSettings
from edge.mqtt.paho_broker import PahoBroker
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_proxy import MqttProxy

BOOT_ID = "0123456789abcdef" * 2
CRITICAL, NORMAL = "readings-critical", "metrics"
PATIENCE_SECONDS = 60.0


class Consumer:
    """Collects in a thread, over connections that outlive the broker's deaths."""

    def __init__(self, folder: Path, port: int) -> None:
        self._path = folder / "telemetry.db"
        settings = BrokerSettings("127.0.0.1", port, "collector", backoff_first_seconds=0.1, backoff_last_seconds=0.3)
        self._settings = settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        store = TelemetryStore(self._path)
        collector = TelemetryCollector(PahoBroker(self._settings), store, "shop", lambda: "2026-11-24T00:00:00Z")
        collector.start()
        while not self._stop.is_set():
            try:
                collector.step(0.1)
            except BrokerUnavailableError:
                continue
        collector.close()
        store.close()

    def close(self) -> None:
        """End; what arrived is in the file."""
        self._stop.set()
        self._thread.join(10)

    def numbers(self, stream: str) -> Counter[int]:
        """How often each record arrived after de-duplication, by its own number."""
        store = TelemetryStore(self._path)
        found = Counter(int(record.body["n"]) for record in store.records("shop", stream=stream))
        store.close()
        return found

    def missing(self, stream: str) -> set[int]:
        """Numbers that neither arrived nor were told as lost, of a stream of one start."""
        store = TelemetryStore(self._path)
        ranges = [one.missing for one in store.check("shop") if one.stream == stream]
        store.close()
        return {number for some in ranges for first, last in some for number in range(first, last + 1)}

    def unaccounted(self) -> list[str]:
        """What is neither there nor told as lost."""
        store = TelemetryStore(self._path)
        found = [f"{one.stream} {one.epoch}: {one.missing}" for one in store.check("shop") if one.missing]
        store.close()
        return found


class Draining:
    """The device's side.

    Attributes:
        put: How many records were put on each of the two streams.
    """

    def __init__(self, folder: Path, port: int, keepalive_seconds: int = 60) -> None:
        self.outbox = Outbox(folder / "outbox", STREAMS, BOOT_ID, SystemClock().monotonic, free_floor_bytes=0)
        self.put = 0
        settings = BrokerSettings(
            "127.0.0.1", port, "pi-1", keepalive_seconds=keepalive_seconds,
            connect_timeout_seconds=2.0, backoff_first_seconds=0.1, backoff_last_seconds=0.3,
        )  # fmt: skip
        self._broker = PahoBroker(settings)
        clocks = BootClocks(folder / "boots.json", BOOT_ID, SystemClock())
        self._drain = Drain(self.outbox, self._broker, Topics("shop", "pi-1"), clocks)
        self.outbox.changed = self._drain.wake
        self._drain.start()
        self._broker.start(self._hear)

    def _hear(self, event: BrokerEvent) -> None:
        self._drain.hear(event)

    def produce(self, count: int, pause_seconds: float = 0.0) -> None:
        """Put numbered records, a critical and a normal one each time."""
        for _ in range(count):
            self.put += 1
            record = json.dumps({"t": int(time.monotonic() * 1000), "n": self.put}).encode()
            self.outbox.put(CRITICAL, [record])
            self.outbox.put(NORMAL, [record])
            time.sleep(pause_seconds)

    def wait_until_empty(self) -> None:
        """Until the broker has acknowledged everything."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(one.records for one in self.outbox.facts()):
            assert time.monotonic() < deadline, f"it does not empty: {self.outbox.facts()}"
            time.sleep(0.02)

    def close(self) -> None:
        """End in order."""
        self._drain.close()
        self._broker.stop()
        self.outbox.close()


class Line:
    """Broker, proxy, consumer and device."""

    def __init__(self, folder: Path, broker: Mosquitto, proxy: MqttProxy, keepalive_seconds: int) -> None:
        self.folder = folder
        self.broker = broker
        self.proxy = proxy
        self.consumer = Consumer(folder, broker.port)
        self._wait_for_subscription()
        self.device = Draining(folder, proxy.port, keepalive_seconds)

    def _wait_for_subscription(self) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "edge/v1/shop" not in self.broker.log():
            assert time.monotonic() < deadline, self.broker.log()
            time.sleep(0.02)

    def wait_for(self, stream: str, number: int) -> None:
        """Until a record is at the consumer."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while number not in self.consumer.numbers(stream):
            assert time.monotonic() < deadline, f"record {number} of {stream} does not arrive"
            time.sleep(0.1)

    def check_all_arrived(self) -> None:
        """Every record that was put is at the consumer, once, and nothing was told as lost."""
        self.device.wait_until_empty()
        wanted = Counter(range(1, self.device.put + 1))
        deadline = time.monotonic() + PATIENCE_SECONDS
        for stream in (CRITICAL, NORMAL):
            while (found := self.consumer.numbers(stream)) != wanted:
                missing, more = wanted - found, found - wanted
                assert time.monotonic() < deadline, f"{stream}: {sorted(missing)} missing, {sorted(more)} too often"
                time.sleep(0.1)
        assert self.consumer.unaccounted() == []
        assert all(one.gaps == 0 for one in self.device.outbox.facts())


@contextmanager
def draining_line(folder: Path, *, keepalive_seconds: int = 60, persistence: bool = True) -> Iterator[Line]:
    """Everything, until the block ends."""
    broker = Mosquitto.plain(folder / "broker", "log_type all", "user root", persistence=persistence)
    with broker, MqttProxy(broker.port) as proxy:
        line = Line(folder, broker, proxy, keepalive_seconds)
        try:
            yield line
        finally:
            line.device.close()
            line.consumer.close()
