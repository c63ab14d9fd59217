"""Where collecting is wired: what the engine tells and the kernel counts in, records for the outbox out."""

import logging
from collections.abc import Mapping
from pathlib import Path

from edge.agent.adapters.cgroup_stats import CgroupMeter
from edge.agent.adapters.clock import SystemClock
from edge.agent.adapters.device_stats import LinuxDeviceMeter
from edge.agent.adapters.followed_log import LogLimits
from edge.agent.adapters.log_shipper import LogShipper
from edge.agent.config import TelemetrySettings
from edge.agent.telemetry.collector import Collector, Intervals, Sources
from edge.agent.telemetry.log_choice import source_of
from edge.agent.telemetry.ports import Prepared, Records, RunningContainer
from edge.agent.telemetry.readings import Origin
from edge.agent.telemetry.readings_server import ReadingsServer
from edge.agent.telemetry.roster import Roster
from edge.errors import StoreError

_log = logging.getLogger(__name__)


class Collecting:
    """Fulfils `Workloads`; everything that is collected goes to the same outbox."""

    def __init__(
        self,
        settings: TelemetrySettings,
        roster: Roster,
        collector: Collector,
        readings: ReadingsServer | None,
        shipper: LogShipper | None,
    ) -> None:
        self._settings = settings
        self._roster = roster
        self._collector = collector
        self._readings = readings
        self._shipper = shipper

    def prepare(self, task_id: str, container: str, log_driver: str, log_options: Mapping[str, str]) -> Prepared:
        """See `Workloads`."""
        folder = log_path = ""
        try:
            if self._readings is not None:
                folder = str(self._readings.open(Origin(task_id, container)))
            source = source_of(task_id, container, log_driver, log_options, self._settings.logs)
            if self._shipper is not None and source is not None:
                log_path = str(self._shipper.prepare(source))
        except StoreError as error:
            _log.warning("container %s of task %s runs without telemetry: %s", container, task_id, error)
        return Prepared(folder, log_path)

    def runs(self, container: RunningContainer) -> None:
        """See `Workloads`."""
        self._roster.runs(container)

    def ended(self, runtime_id: str) -> None:
        """See `Workloads`."""
        self._roster.ended(runtime_id)

    def release(self, task_id: str) -> None:
        """See `Workloads`."""
        self._roster.forget(task_id)
        if self._readings is not None:
            self._readings.release(task_id)
        if self._shipper is not None:
            self._shipper.release(task_id)

    def start(self) -> None:
        """Begin, with what an agent before this one left."""
        self._collector.start()
        if self._readings is not None:
            self._readings.start()
        if self._shipper is not None:
            self._shipper.start()

    def close(self) -> None:
        """End, with everything that is known handed over; the outbox must still take records."""
        self._collector.close()
        if self._readings is not None:
            self._readings.close()
        if self._shipper is not None:
            self._shipper.close()


def start_collecting(settings: TelemetrySettings, state_dir: Path, records: Records, clock: SystemClock) -> Collecting:
    """Begin to collect, and return whom the engine must tell of its containers; to be closed before the outbox is."""
    roster = Roster()
    sources = Sources(
        roster=roster,
        containers=CgroupMeter(),
        device=LinuxDeviceMeter(state_dir, clock.is_synchronized),
        monotonic=clock.monotonic,
    )
    intervals = Intervals(settings.containers_seconds, settings.device_seconds)
    readings = shipper = None
    if settings.readings:
        readings = ReadingsServer(
            state_dir / "readings", records, clock.monotonic, records_per_second=settings.readings_per_second
        )
    if settings.logs != "none":
        limits = LogLimits(settings.log_lines_per_second, settings.log_bytes_per_second)
        shipper = LogShipper(state_dir / "logs", records, clock.monotonic, limits)
    collecting = Collecting(settings, roster, Collector(records, sources, intervals), readings, shipper)
    collecting.start()
    return collecting
