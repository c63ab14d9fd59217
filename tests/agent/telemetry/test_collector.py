from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from edge.agent.telemetry.collector import Collector, Intervals, Sources, next_due
from edge.agent.telemetry.metrics import Earlier, container_record, encode
from edge.agent.telemetry.ports import ContainerSample, RunningContainer
from edge.agent.telemetry.roster import Roster
from tests.fakes.records import FakeRecords

WEB: Final = RunningContainer("a" * 64, 100, "3f2a9c0d5e7b41868a1f0c2d4e6b8a90", "web")
SAMPLE: Final = ContainerSample(
    since_ms=86_000_120,
    cpu_ns=12_345_678_901,
    memory_bytes=52_428_800,
    working_set_bytes=31_457_280,
    memory_limit_bytes=67_108_864,
    oom_kills=0,
    rx_bytes=1_048_676,
    tx_bytes=65_586,
    rx_packets=1202,
    tx_packets=801,
    net_errors=0,
    read_bytes=4_190_208,
    written_bytes=8192,
)


class Meters:
    """Both meters, saying what a test wants."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.samples: dict[str, ContainerSample] = {}
        self.fields: dict[str, Any] = {"load1": 0.5}
        self.device = self
        self.asked: list[str] = []

    def read(self, containers: Sequence[RunningContainer] | None = None) -> Mapping[str, Any]:
        if containers is None:
            self.asked.append("device")
            return self.fields
        self.asked.append("containers")
        return {c.runtime_id: self.samples[c.runtime_id] for c in containers if c.runtime_id in self.samples}


@pytest.fixture
def meters() -> Meters:
    return Meters()


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


def collector(meters: Meters, records: FakeRecords, roster: Roster, intervals: Intervals | None = None) -> Collector:
    sources = Sources(roster, meters, meters, lambda: meters.now)
    return Collector(records, sources, intervals or Intervals())


@pytest.mark.parametrize(
    ("now", "intervals", "due"),
    [
        (0.0, Intervals(30, 60), 30.0),
        (29.999, Intervals(30, 60), 30.0),
        (30.0, Intervals(30, 60), 60.0),
        (61.0, Intervals(30, 60), 90.0),
        (61.0, Intervals(0, 60), 120.0),
        (61.0, Intervals(45, 60), 90.0),
        (61.0, Intervals(0, 0), None),
    ],
)
def test_the_timer_rings_for_all_classes_at_once(now: float, intervals: Intervals, due: float | None) -> None:
    assert next_due(now, intervals) == due


def test_a_class_is_measured_at_its_own_times(meters: Meters, records: FakeRecords) -> None:
    measured = collector(meters, records, Roster())
    measured.measure(30.0)
    measured.measure(60.0)
    assert meters.asked == ["containers", "device", "containers"]
    assert records.streams["metrics"] == [{"t": 1_000_000, "kind": "device", "load1": 0.5}]


def test_a_class_with_interval_0_is_never_measured(meters: Meters, records: FakeRecords) -> None:
    quiet = collector(meters, records, Roster(), Intervals(0, 0))
    quiet.measure(60.0)
    quiet.start()
    quiet.close()
    assert (meters.asked, records.streams) == ([], {})


def test_all_of_one_moment_is_one_batch_and_the_newest_is_kept_by_key(meters: Meters, records: FakeRecords) -> None:
    roster = Roster()
    database = replace(WEB, runtime_id="b" * 64, name="db")
    roster.runs(WEB)
    roster.runs(database)
    meters.samples = {WEB.runtime_id: SAMPLE, database.runtime_id: SAMPLE}
    collector(meters, records, roster).measure(60.0)
    assert records.batches == [("metrics", 3)]
    assert set(records.latest) == {
        ("state", "device"),
        ("state", f"container/{WEB.task_id}/web"),
        ("state", f"container/{WEB.task_id}/db"),
    }


def test_processor_time_is_told_in_percent_of_one_core_between_two_samples(
    meters: Meters, records: FakeRecords
) -> None:
    roster = Roster()
    roster.runs(WEB)
    measured = collector(meters, records, roster)
    meters.samples = {WEB.runtime_id: SAMPLE}
    measured.measure(30.0)
    meters.now += 30
    meters.samples = {WEB.runtime_id: replace(SAMPLE, cpu_ns=SAMPLE.cpu_ns + 45_000_000_000)}  # type: ignore[operator]
    measured.measure(60.0)
    first, second = (r for r in records.streams["metrics"] if r["kind"] == "container")
    assert "cpu" not in first
    assert "start" not in first
    assert second["cpu"] == 150.0
    assert second["cpuNs"] == 57_345_678_901


@pytest.mark.parametrize(
    "again",
    [
        replace(SAMPLE, since_ms=86_100_000, cpu_ns=99_000_000_000),
        replace(SAMPLE, cpu_ns=1),
        replace(SAMPLE, rx_bytes=0),
    ],
)
def test_counters_that_began_anew_are_told_by_a_marker_and_never_as_a_rate(again: ContainerSample) -> None:
    record = container_record(WEB, again, 30_000, Earlier(0, SAMPLE))
    assert record["start"] is True
    assert "cpu" not in record
    following = container_record(WEB, again, 60_000, Earlier(30_000, again))
    assert "start" not in following
    assert following["cpu"] == 0.0


def test_what_the_host_does_not_tell_is_not_in_the_record() -> None:
    record = container_record(WEB, ContainerSample(since_ms=1, cpu_ns=5), 7, None)
    assert set(record) == {"t", "kind", "task", "container", "since", "cpuNs", "restarts"}


def test_a_record_is_small() -> None:
    record = container_record(WEB, SAMPLE, 86_400_123, Earlier(86_370_123, SAMPLE))
    assert len(encode(record)) <= 320


def test_a_container_that_ended_is_not_measured(meters: Meters, records: FakeRecords) -> None:
    roster = Roster()
    roster.runs(WEB)
    meters.samples = {WEB.runtime_id: SAMPLE}
    measured = collector(meters, records, roster)
    assert roster.ended(WEB.runtime_id) is not None
    assert roster.ended(WEB.runtime_id) is None
    measured.measure(30.0)
    assert records.streams == {}


def test_restarts_are_counted_by_task_and_name_whatever_the_engine_s_id() -> None:
    roster = Roster()
    counts = [
        roster.runs(WEB).restarts,
        roster.runs(WEB).restarts,
        roster.runs(replace(WEB, pid=101)).restarts,
        roster.runs(replace(WEB, pid=102, runtime_id="c" * 64)).restarts,
        roster.runs(replace(WEB, pid=103, name="db")).restarts,
    ]
    assert counts == [0, 0, 1, 2, 0]
    roster.forget(WEB.task_id)
    assert roster.runs(replace(WEB, pid=104)).restarts == 0


def test_one_failed_measurement_does_not_end_the_ones_that_follow(records: FakeRecords) -> None:
    class Moody(Meters):
        def read(self, containers: Sequence[RunningContainer] | None = None) -> Mapping[str, Any]:
            self.now += 0.999
            if len(self.asked) < 2:
                self.asked.append("failed")
                raise RuntimeError("no")
            return super().read(containers)

    meters = Moody()
    # Each look at the clock finds the time nearly come.
    meters.now = 59.99
    running = collector(meters, records, Roster(), Intervals(0, 1))
    running.start()
    try:
        assert records.wait_for("metrics", lambda found: len(found) >= 2)[0]["kind"] == "device"
    finally:
        running.close()
    assert meters.asked[:2] == ["failed", "failed"]
