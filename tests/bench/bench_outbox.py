"""The outbox: how fast records come in, what flash it costs, how fast they leave, and how it sleeps."""

from typing import Any

from tests.bench import outbox_drain, outbox_store
from tests.bench.bench_footprint import SAMPLES, WAKEUPS_GOAL, measure

NAME = "outbox"
WARM_UP_SECONDS = 90.0
"""What a start does is over after it; `./dev bench footprint` waits longer, for the memory."""


def run(report: Any) -> None:
    """Measure, and report."""
    outbox_store.run(report)
    outbox_drain.run(report)
    wakeups = measure(WARM_UP_SECONDS).wakeups
    report.figure(
        name="agent that measures five sleeping containers: voluntary wake-ups",
        value=round(wakeups, 3),
        unit="1/s",
        goal=f"<= {WAKEUPS_GOAL}",
        holds=wakeups <= WAKEUPS_GOAL,
        runs=SAMPLES,
    )
