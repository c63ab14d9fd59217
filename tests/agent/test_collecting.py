"""Collecting as a whole, on real Podman: what a container publishes, uses and writes becomes records."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from edge.agent.adapters.cgroup_stats import CgroupMeter
from edge.agent.adapters.clock import SystemClock
from edge.agent.adapters.podman import PodmanEngine
from edge.agent.collecting import Collecting, start_collecting
from edge.agent.config import TelemetrySettings
from edge.agent.engine.ports import EngineStatus, FoundContainer
from edge.agent.telemetry.ports import RunningContainer
from edge.model.container_spec_builder import SpecContext, build_container_spec
from edge.model.task_definition import parse_task_definition
from tests.fakes.records import FakeRecords
from tests.support.podman import IMAGE, PodmanService, podman_service

pytestmark = pytest.mark.podman

HOST_FOLDERS: Final = ("/usr", "/lib", "/lib64")
"""curl and what it is linked to, lent to a container whose image has a busybox alone."""
AWSLOGS: Final = {"logDriver": "awslogs", "options": {"awslogs-group": "shop", "awslogs-stream-prefix": "till"}}
_WAIT_SECONDS: Final = 30


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    with podman_service(tmp_path_factory.mktemp("podman")) as running:
        yield running


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


class Device:
    """An engine and collecting, told of containers as the agent's own engine tells."""

    def __init__(self, folder: Path, podman: PodmanService, records: FakeRecords) -> None:
        self.folder = folder
        self.engine = PodmanEngine(podman.socket)
        self.records = records
        self.collecting = self.collect()

    def collect(self) -> Collecting:
        return start_collecting(TelemetrySettings(0, 0), self.folder, self.records, SystemClock())

    def restart(self) -> None:
        self.collecting.close()
        self.collecting = self.collect()

    def run(self, script: str, **fields: Any) -> FoundContainer:
        container = {"name": "web", "image": IMAGE, "memory": 32, "command": ["/bin/sh", "-c", script], **fields}
        volumes = [{"name": path.strip("/"), "host": {"sourcePath": path}} for path in HOST_FOLDERS]
        container["mountPoints"] = [
            {"sourceVolume": path.strip("/"), "containerPath": path, "readOnly": True} for path in HOST_FOLDERS
        ]
        document = {"family": "app", "networkMode": "none", "containerDefinitions": [container], "volumes": volumes}
        log = container.get("logConfiguration", {"logDriver": "json-file"})
        prepared = self.collecting.prepare("task-1", "web", log["logDriver"], log.get("options", {}))
        image = self.engine.image(IMAGE)
        assert image is not None
        context = SpecContext(
            cluster="c",
            device="d",
            task_id="task-1",
            definition_digest="sha",
            image_id=image.image_id,
            telemetry_folder=prepared.readings_folder,
            log_path=prepared.log_path,
        )
        found = self.engine.start(
            self.engine.create(build_container_spec(parse_task_definition(document), "web", context))
        )
        self.collecting.runs(RunningContainer(found.runtime_id, found.pid, "task-1", "web"))
        return found

    def wait_exit(self, found: FoundContainer) -> FoundContainer:
        deadline = time.monotonic() + _WAIT_SECONDS
        while (now := self.engine.inspect(found.runtime_id)) is None or now.status is EngineStatus.RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return now

    def log(self, found: FoundContainer) -> list[str]:
        return [line.text for line in self.engine.logs(found.runtime_id, tail=None, follow=False)]

    def close(self) -> None:
        self.collecting.close()
        for container in self.engine.list_labelled("edge.device", "c/d"):
            self.engine.remove(container.runtime_id)
        self.engine.close()


@pytest.fixture
def device(tmp_path: Path, podman: PodmanService, records: FakeRecords) -> Iterator[Device]:
    running = Device(tmp_path, podman, records)
    yield running
    running.close()


CURL: Final = "curl -s -o /dev/null -w '%{http_code} ' --unix-socket $EDGE_TELEMETRY_SOCKET http://edge/v1/readings"


@pytest.mark.parametrize("user", ["", "app"])
def test_curl_inside_a_container_publishes(device: Device, records: FakeRecords, user: str) -> None:
    script = f"""env | grep EDGE_TELEMETRY_URI
        {CURL} -d '{{"celsius": 21.5}}'
        {CURL}?promise=critical -d '[{{"n": 1}}, {{"n": 2}}]'
        {CURL} -d nonsense
        touch /run/edge/x || echo kept"""
    found = device.wait_exit(device.run(script, user=user, readonlyRootFilesystem=True))
    words = " ".join(device.log(found)).split()
    assert words[0] == "EDGE_TELEMETRY_URI=http+unix://%2Frun%2Fedge%2Ftelemetry.sock"
    assert words[1:4] == ["204", "204", "400"]
    assert words[-1] == "kept"
    assert [(r["task"], r["container"], r["data"]) for r in records.streams["readings"]] == [
        ("task-1", "web", {"celsius": 21.5})
    ]
    assert [r["data"] for r in records.streams["readings-critical"]] == [{"n": 1}, {"n": 2}]


def test_a_container_that_never_stopped_reaches_a_restarted_agent(device: Device, records: FakeRecords) -> None:
    found = device.run(f"while true; do {CURL} -d '{{}}'; sleep 0.1; done")
    records.wait_for("readings", lambda found: len(found) >= 2)
    device.collecting.close()
    before = len(records.streams["readings"])
    device.collecting = device.collect()
    records.wait_for("readings", lambda found: len(found) >= before + 2)
    now = device.engine.inspect(found.runtime_id)
    assert now is not None
    assert (now.status, now.pid) == (EngineStatus.RUNNING, found.pid)


def test_the_log_of_a_container_that_asks_is_shipped_and_can_still_be_read_here(
    device: Device, records: FakeRecords
) -> None:
    found = device.run("echo one; echo two >&2; printf half; sleep 1000", logConfiguration=AWSLOGS)
    shipped = records.wait_for("logs", lambda found: len(found) >= 2)
    assert [(r["from"], r["text"], r["group"], r["stream"]) for r in sorted(shipped, key=lambda r: r["from"])] == [
        ("stderr", "two", "shop", "till/web/task-1"),
        ("stdout", "one", "shop", "till/web/task-1"),
    ]
    assert {"one", "two"} <= set(device.log(found))
    device.engine.stop(found.runtime_id, 0)
    device.engine.remove(found.runtime_id)
    device.collecting.release("task-1")
    records.wait_for("logs", lambda found: found[-1]["text"] == "half")
    device.collecting.close()
    assert not (device.folder / "logs" / "task-1").exists()
    assert not (device.folder / "readings" / "task-1").exists()


def test_a_log_nobody_asked_for_stays_here(device: Device, records: FakeRecords) -> None:
    found = device.wait_exit(device.run("echo private"))
    device.collecting.close()
    assert "logs" not in records.streams
    assert device.log(found) == ["private"]


def test_a_container_s_counters_are_the_kernel_s(device: Device) -> None:
    found = device.run("while true; do true; done")
    container = RunningContainer(found.runtime_id, found.pid, "task-1", "web")
    meter = CgroupMeter()
    first = meter.read([container])[found.runtime_id]
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        second = meter.read([container])[found.runtime_id]
        assert second.cpu_ns is not None
        assert first.cpu_ns is not None
        if second.cpu_ns > first.cpu_ns + 100_000_000:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert second.since_ms == first.since_ms
    assert second.since_ms <= SystemClock().monotonic() * 1000
    if second.memory_bytes is not None:
        assert second.memory_limit_bytes == 32 * 2**20
        assert 0 < second.memory_bytes <= second.memory_limit_bytes
        assert second.oom_kills == 0
    assert (second.rx_bytes, second.tx_bytes) == (0, 0)
    device.engine.stop(found.runtime_id, 0)
    assert meter.read([container]) == {}


def test_a_container_runs_where_nothing_can_be_written(
    tmp_path: Path, podman: PodmanService, records: FakeRecords
) -> None:
    for name in ("readings", "logs"):
        (tmp_path / name).write_text("in the way")
    device = Device(tmp_path, podman, records)
    found = device.wait_exit(device.run("echo ran; env | grep -c EDGE_", logConfiguration=AWSLOGS))
    assert device.log(found) == ["ran", "0"]
    device.close()


def test_the_device_is_measured(tmp_path: Path, records: FakeRecords) -> None:
    collecting = start_collecting(TelemetrySettings(0, 1), tmp_path, records, SystemClock())
    first, second = records.wait_for("metrics", lambda found: len(found) >= 2)[:2]
    collecting.close()
    assert second["t"] > first["t"]
    assert second["kind"] == "device"
    assert json.dumps(second)
