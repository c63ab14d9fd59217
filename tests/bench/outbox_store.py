"""The outbox's own figures: how fast it takes records, what it writes to flash, how it opens with a long backlog."""

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.agent.store.outbox import Outbox
from edge.agent.store.outbox.ring import LEVEL
from edge.model.records import STREAMS, Block
from tests.support.loop_disk import LoopDisk, loop_disk
from tests.support.metrics_records import RECORD_BYTES, metrics_records, take

BOOT_ID = "0123456789abcdef" * 2
BATCH = 100
BATCHES = 4000
RUNS = 5
BACKLOG = 2_000_000
COMMIT_SECONDS = 5
"""How often ext4 writes what it has noted by itself (`commit=`)."""


def run(report: Any) -> None:
    """Measure, and report."""
    pool = take(20_000)
    _bytes_per_record(report, pool)
    _ingest(report, pool)
    _flash(report)
    _open(report, pool)


def _outbox(folder: Path, monotonic: Callable[[], float] = time.monotonic, *, spooler: bool = True) -> Outbox:
    return Outbox(folder, STREAMS, BOOT_ID, monotonic, free_floor_bytes=0, spooler=spooler)


def _bytes_per_record(report: Any, pool: list[bytes]) -> None:
    sizes = [len(zlib.compress(b"\n".join(pool[at : at + 500]), LEVEL)) for at in range(0, len(pool), 500)]
    each = sum(sizes) / len(pool)
    name = f"payload per {RECORD_BYTES}-byte metrics record in blocks of 500"
    report.figure(name=name, value=round(each, 1), unit="B", goal="<= 45", holds=each <= 45, runs=len(sizes))


def _ingest(report: Any, pool: list[bytes]) -> None:
    batches = [pool[at : at + BATCH] for at in range(0, len(pool), BATCH)]
    ours, raw = [], []
    # In turns: what else the host does meets both.
    for _ in range(RUNS):
        raw.append(_append(batches))
        ours.append(_put(batches))
    rate, ratio = statistics.median(ours), statistics.median(ours) / statistics.median(raw)
    label = f"durable, batches of {BATCH}"
    report.figure(
        name=f"ingest, {label}", value=round(rate), unit="1/s", goal=">= 200000", holds=rate >= 200_000, runs=RUNS
    )
    report.figure(name=f"append and fdatasync of the same bytes, {label}", value=round(statistics.median(raw)),
                  unit="1/s", runs=RUNS)  # fmt: skip
    report.figure(
        name="ingest by append and fdatasync", value=round(ratio, 2), unit="x", goal=">= 0.7", holds=ratio >= 0.7,
        runs=RUNS,
    )  # fmt: skip


def _put(batches: list[list[bytes]]) -> float:
    """Critical records: each `put` returns when its batch is on the disk."""
    with tempfile.TemporaryDirectory(prefix="edge-outbox-") as name:
        outbox = _outbox(Path(name) / "outbox")
        began = time.perf_counter()
        for number in range(BATCHES):
            outbox.put("readings-critical", batches[number % len(batches)])
        seconds = time.perf_counter() - began
        outbox.close()
    return BATCHES * BATCH / seconds


def _append(batches: list[list[bytes]]) -> float:
    joined = [b"\n".join(batch) + b"\n" for batch in batches]
    with tempfile.TemporaryDirectory(prefix="edge-append-") as name:
        file = os.open(Path(name) / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        began = time.perf_counter()
        for number in range(BATCHES):
            os.write(file, joined[number % len(joined)])
            os.fdatasync(file)
        seconds = time.perf_counter() - began
        os.close(file)
    return BATCHES * BATCH / seconds


def _flash(report: Any) -> None:
    for label, rate, seconds, online, goal in (
        ("online at 100 records/s", 100, 600, True, 0.02),
        ("offline for an hour and drained, at 100 records/s", 100, 3600, False, 0.6),
        ("offline for an hour and drained, at 10 records/s", 10, 3600, False, 2.0),
    ):
        ratio = _written_per_byte(rate, seconds, online=online)
        name = f"bytes to flash per byte of records, {label}"
        report.figure(name=name, value=round(ratio, 3), unit="B/B", goal=f"<= {goal}", holds=ratio <= goal)


def _written_per_byte(rate: int, seconds: int, *, online: bool) -> float:
    """Simulate the time second by second, the file system's own writes every five of them included."""
    now = 1000.0
    source = metrics_records()
    with tempfile.TemporaryDirectory(prefix="edge-flash-") as name, loop_disk(Path(name), 256) as disk:
        outbox = _outbox(disk.folder / "outbox", lambda: now, spooler=False)
        before = disk.written()
        put = 0
        for second in range(seconds):
            records = [next(source) for _ in range(rate)]
            put += sum(map(len, records))
            for at in range(0, rate, 10):
                now = 1000.0 + second + at / rate
                outbox.put("metrics", records[at : at + 10])
                if online:
                    _acknowledge_all(outbox)
                outbox.run_due()
            if second % COMMIT_SECONDS == 0:
                disk.commit()
        now += 1.0
        count = _drain(outbox, disk, lambda: now)
        outbox.close()
        written = disk.written() - before
    assert online or count == rate * seconds
    return written / put


def _acknowledge_all(outbox: Outbox) -> int:
    count = 0
    while (block := outbox.next_live()) is not None:
        outbox.acknowledged(block)
        count += block.count
    return count


def _drain(outbox: Outbox, disk: LoopDisk, monotonic: Callable[[], float]) -> int:
    count = 0
    window: list[Block] = []
    del monotonic
    while (block := outbox.next_backlog() or outbox.next_live()) is not None:
        window.append(block)
        count += block.count
        if len(window) == 16:
            outbox.acknowledged(window.pop(0))
            outbox.run_due()
    for block in window:
        outbox.acknowledged(block)
    outbox.run_due()
    disk.commit()
    return count


def _open(report: Any, pool: list[bytes]) -> None:
    batches = [pool[at : at + 500] for at in range(0, len(pool), 500)]
    with tempfile.TemporaryDirectory(prefix="edge-backlog-") as name:
        folder = Path(name) / "outbox"
        outbox = _outbox(folder)
        times = []
        for number in range(BACKLOG // 500):
            began = time.perf_counter()
            outbox.put("metrics", batches[number % len(batches)])
            times.append(time.perf_counter() - began)
        outbox.close()
        ms, grown = zip(*(_opened(folder) for _ in range(RUNS)), strict=True)
    tenth = len(times) // 10
    flat = statistics.fmean(times[-tenth:]) / statistics.fmean(times[:tenth])
    rows = (
        (f"open with {BACKLOG} records waiting", statistics.median(ms), "ms", "<= 50", 50.0),
        (f"memory for {BACKLOG} records waiting", statistics.median(grown), "MB", "<= 3", 3.0),
        ("cost of a put, last tenth by first tenth of these", flat, "x", "<= 1.2", 1.2),
    )
    for what, value, unit, goal, most in rows:
        report.figure(name=what, value=round(value, 2), unit=unit, goal=goal, holds=value <= most, runs=RUNS)


_OPENING = """
import sys, time
from pathlib import Path
from tests.bench import outbox_store
print(*outbox_store.open_here(Path(sys.argv[1])))
"""


def _opened(folder: Path) -> tuple[float, float]:
    """In a process of its own, which is as large as it ever was."""
    done = subprocess.run([sys.executable, "-c", _OPENING, str(folder)], capture_output=True, text=True, check=True)
    ms, grown = map(float, done.stdout.split())
    return ms, grown


def open_here(folder: Path) -> tuple[float, float]:
    """Open, and return milliseconds and how many megabytes the process's peak memory grew."""
    gc.collect()
    with tempfile.TemporaryDirectory() as name:
        _outbox(Path(name) / "outbox", spooler=False).close()
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    began = time.perf_counter()
    outbox = _outbox(folder, spooler=False)
    ms = (time.perf_counter() - began) * 1000
    waiting = sum(one.records for one in outbox.facts())
    grown = _peak() - before
    assert waiting == BACKLOG, waiting
    outbox.close()
    return ms, grown / 1e6


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
