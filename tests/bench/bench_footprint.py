"""What the agent costs while nothing happens: memory, wake-ups, processor, flash.

Five containers run, the broker is connected; after five minutes of warm-up (nothing is done to hasten anything) PSS is
read every ten seconds for a minute, and the counters of the kernel are compared over that minute.
`EDGE_BENCH_WARM_UP` shortens the warm-up in seconds; the figure's name says what it was.
"""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.podman import podman_service
from tests.support.stack import Stack, running_stack

NAME = "footprint"
CONTAINERS = 5
SAMPLES = 7
SAMPLE_SECONDS = 10.0
TICKS = os.sysconf("SC_CLK_TCK")
WAKEUPS_GOAL = 0.5


@dataclass(frozen=True, slots=True)
class Idle:
    """An idle agent: memory in MB, voluntary wake-ups a second, per cent of a core, MB written in an hour."""

    pss: float
    anonymous: float
    wakeups: float
    processor: float
    written: float


def run(report: Any) -> None:
    """Measure, and report."""
    warm_up = float(os.environ.get("EDGE_BENCH_WARM_UP", "300"))
    idle = measure(warm_up)
    label = f"after {warm_up:.0f} s with {CONTAINERS} containers"
    rows = (
        (f"agent PSS {label}", idle.pss, "MB", 40.0),
        (f"agent anonymous memory {label}", idle.anonymous, "MB", None),
        ("voluntary wake-ups, idle", idle.wakeups, "1/s", WAKEUPS_GOAL),
        ("processor, idle", idle.processor, "% of a core", 0.5),
        ("written to disk, idle", idle.written, "MB/h", 1.0),
    )
    for what, value, unit, goal in rows:
        goal_text = "" if goal is None else f"<= {goal}"
        report.figure(name=what, value=round(value, 3), unit=unit, goal=goal_text, holds=goal is None or value <= goal, runs=SAMPLES)  # fmt: skip  # noqa: E501


def measure(warm_up: float) -> Idle:
    """Look for a minute, after `warm_up` seconds, at an agent whose containers sleep."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "podman").mkdir()
        with podman_service(folder / "podman") as podman, running_stack(folder / "stack", podman) as stack:
            _start_tasks(stack)
            time.sleep(warm_up)
            pid = int(stack.status()["pid"])
            before = _counters(pid)
            began = time.monotonic()
            memory = []
            for number in range(SAMPLES):
                time.sleep(max(0.0, began + number * SAMPLE_SECONDS - time.monotonic()))
                memory.append(_memory(pid))
            seconds = time.monotonic() - began
            after = _counters(pid)
            assert len(stack.containers()) == CONTAINERS
    change = {key: after[key] - before[key] for key in after}
    return Idle(
        pss=statistics.median(pss for pss, _ in memory),
        anonymous=statistics.median(anonymous for _, anonymous in memory),
        wakeups=change["wakeups"] / seconds,
        processor=change["ticks"] / TICKS / seconds * 100,
        written=change["written"] / seconds * 3600 / 1e6,
    )


def _start_tasks(stack: Stack) -> None:
    definition = stack.register({"name": "app", "command": ["sleep", "100000"], "memory": 16})
    stack.edge("task", "run", definition, "--count", str(CONTAINERS))


def _memory(pid: int) -> tuple[float, float]:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    values = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
    return int(values["Pss"]) / 1024 * 1.048576, int(values["Pss_Anon"]) / 1024 * 1.048576


def _counters(pid: int) -> dict[str, int]:
    wakeups = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        wakeups += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return {"wakeups": wakeups, "ticks": int(fields[11]) + int(fields[12]), "written": int(io["write_bytes"])}
