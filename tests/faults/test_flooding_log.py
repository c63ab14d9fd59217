"""A container that writes as fast as it can: the others' lines come through, and what is left out is told."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from edge.agent.adapters.followed_log import BURST_SECONDS, LogLimits
from edge.agent.adapters.log_shipper import LogShipper
from edge.agent.adapters.podman import PodmanEngine
from edge.agent.engine.ports import FoundContainer
from edge.agent.telemetry.log_lines import Source
from edge.model.container_spec import ContainerSpec, LogSettings
from tests.fakes.records import FakeRecords
from tests.support.podman import IMAGE, PodmanService, podman_service

pytestmark = pytest.mark.podman

LIMITS: Final = LogLimits(100, 32 * 1024)
CALM_LINES: Final = 50
FLOOD_LINES: Final = 400_000
FILE_BYTES: Final = 4 * 1024 * 1024
"""Small, so that the flooding log begins anew many times."""
FLOOD: Final = Source("task-1", "flood")
CALM: Final = Source("task-2", "calm")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodmanService]:
    with podman_service(tmp_path_factory.mktemp("podman")) as running:
        yield running


@pytest.fixture
def engine(podman: PodmanService) -> Iterator[PodmanEngine]:
    running = PodmanEngine(podman.socket)
    yield running
    for container in running.list_labelled("edge.device", "flood/one"):
        running.remove(container.runtime_id)
    running.close()


def start(
    engine: PodmanEngine, shipper: LogShipper, source: Source, script: str
) -> tuple[FoundContainer, threading.Event]:
    image = engine.image(IMAGE)
    assert image is not None
    spec = ContainerSpec(
        name=source.container,
        image_id=image.image_id,
        labels=(("edge.device", "flood/one"),),
        command=("/bin/sh", "-c", script),
        network_mode="none",
        log=LogSettings("json-file", FILE_BYTES, path=str(shipper.prepare(source))),
    )
    ended = threading.Event()
    found = engine.start(engine.create(spec))
    engine.watch_exit(found, lambda _: ended.set())
    return found, ended


def of(records: list[Any], source: Source, *, dropped: bool = False) -> list[Any]:
    return [r for r in records if r["container"] == source.container and (r.get("kind") == "dropped") is dropped]


def test_a_flood_costs_nobody_else_a_line(tmp_path: Path, engine: PodmanEngine) -> None:
    records = FakeRecords()
    shipper = LogShipper(tmp_path / "logs", records, time.monotonic, LIMITS)
    began = time.monotonic()
    _, flooded = start(engine, shipper, FLOOD, f"seq 1 {FLOOD_LINES}")
    _, calmed = start(engine, shipper, CALM, f"for n in $(seq 1 {CALM_LINES}); do echo calm $n; sleep 0.02; done")
    assert calmed.wait(60)
    assert flooded.wait(60), "the flooding container was held up"
    records.wait_for("logs", lambda found: len(of(found, CALM)) == CALM_LINES)
    shipper.close()
    seconds = time.monotonic() - began
    found = records.streams["logs"]

    assert [r["text"] for r in of(found, CALM)] == [f"calm {n}" for n in range(1, CALM_LINES + 1)]
    assert of(found, CALM, dropped=True) == []
    kept, told = of(found, FLOOD), of(found, FLOOD, dropped=True)
    assert [r["text"] for r in kept[:100]] == [str(n) for n in range(1, 101)]
    assert len(kept) <= LIMITS.lines * (BURST_SECONDS + seconds + 1)
    assert told
    assert len(told) <= 1 + seconds / 10
    missed = sum(r["files"] for r in told)
    counted = len(kept) + sum(r["lines"] for r in told)
    # A file that was begun and replaced between two looks took lines with it that nobody counted.
    assert counted == FLOOD_LINES if missed == 0 else counted < FLOOD_LINES, (counted, missed, told)
    numbers = [int(r["text"]) for r in kept]
    assert numbers == sorted(set(numbers)), "a line came twice, or half of one"


def test_a_flood_that_goes_on_leaves_the_agent_s_memory_as_it_is(tmp_path: Path, engine: PodmanEngine) -> None:
    records = FakeRecords()
    shipper = LogShipper(tmp_path / "logs", records, time.monotonic, LIMITS)
    flood, ended = start(engine, shipper, FLOOD, "while true; do seq 1 100000; done")
    records.wait_for("logs", lambda found: len(of(found, FLOOD)) >= LIMITS.lines * BURST_SECONDS)
    before, put = resident_bytes(), len(records.streams["logs"])
    records.wait_for("logs", lambda found: len(found) >= put + 3 * LIMITS.lines)
    # Two looks at a file are at most what is read in one piece, again and again: nothing of it may stay.
    assert resident_bytes() - before < 16 * 2**20
    assert max(size for _, size in records.batches) <= 500
    assert not ended.is_set(), "the container was stopped by its log"
    engine.stop(flood.runtime_id, 0)
    files = [path.stat().st_size for path in (tmp_path / "logs").rglob("container.log*")]
    assert sum(files) < 3 * FILE_BYTES
    shipper.close()
    assert json.loads((tmp_path / "logs" / "positions.json").read_bytes()).keys() == {"task-1/flood"}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096
