"""What is measured when: one thread, one timer for all classes, asleep in between."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from edge.agent.telemetry.metrics import Earlier, container_record, device_record, encode
from edge.agent.telemetry.ports import ContainerMeter, DeviceMeter, Records
from edge.agent.telemetry.roster import Roster
from edge.errors import EdgeError
from edge.model.records import METRICS, STATE

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Seconds between two measurements of a class; 0 measures it never."""

    containers: int = 30
    device: int = 60


@dataclass(frozen=True, slots=True)
class Sources:
    """Where measurements come from; `monotonic` is in seconds of the boot."""

    roster: Roster
    containers: ContainerMeter
    device: DeviceMeter
    monotonic: Callable[[], float]


class Collector:
    """Measures and records until it is closed."""

    def __init__(self, records: Records, sources: Sources, intervals: Intervals) -> None:
        self._records = records
        self._sources = sources
        self._intervals = intervals
        self._earlier: dict[str, Earlier] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; with nothing to measure there is no thread."""
        if next_due(0.0, self._intervals) is not None:
            self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End, and wait for a measurement that is under way."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def measure(self, due: float) -> None:
        """Measure the classes whose time is `due`, and hand over their records."""
        at_ms = int(self._sources.monotonic() * 1000)
        batch = []
        if _is_due(self._intervals.device, due):
            record = encode(device_record(self._sources.device.read(), at_ms))
            self._records.put_latest(STATE.name, "device", record)
            batch.append(record)
        if _is_due(self._intervals.containers, due):
            batch += self._measure_containers(at_ms)
        if batch:
            self._records.put(METRICS.name, batch)

    def _measure_containers(self, at_ms: int) -> list[bytes]:
        containers = self._sources.roster.running()
        samples = self._sources.containers.read(containers)
        batch, earlier = [], {}
        for container in containers:
            sample = samples.get(container.runtime_id)
            if sample is None:
                continue
            before = self._earlier.get(container.runtime_id)
            record = encode(container_record(container, sample, at_ms, before))
            earlier[container.runtime_id] = Earlier(at_ms, sample)
            self._records.put_latest(STATE.name, f"container/{container.task_id}/{container.name}", record)
            batch.append(record)
        self._earlier = earlier
        return batch

    def _run(self) -> None:
        while True:
            now = self._sources.monotonic()
            due = next_due(now, self._intervals)
            assert due is not None  # noqa: S101 - `start` looked
            if self._closed.wait(due - now):
                return
            # A timer may ring a little early; what is due is decided by its time, not by the ringing.
            try:
                self.measure(due)
            except EdgeError as error:
                _log.warning("a measurement could not be recorded: %s", error)
            except Exception:  # noqa: BLE001 - a defect in one measurement must not end all that follow
                _log.exception("a measurement failed for a reason nobody thought of")


def next_due(now: float, intervals: Intervals) -> float | None:
    """Return when something is measured next, in seconds of the boot; None for never.

    Times are whole multiples of each interval, so that classes whose intervals divide each other wake together.
    """
    every = [seconds for seconds in (intervals.containers, intervals.device) if seconds]
    return min((float((int(now) // seconds + 1) * seconds) for seconds in every), default=None)


def _is_due(seconds: int, due: float) -> bool:
    return seconds > 0 and int(due) % seconds == 0
