"""How long `plan()` takes to decide what is due for 200 tasks in every stage of life."""

import statistics
import time
from typing import Any

from edge.model import lifecycle
from edge.model.plan import plan
from edge.model.task import StopCode, Task
from tests.support.tasks import NOW, container_definition, make_task

NAME = "plan"
TASKS = 200
RUNS = 200
GOAL_MS = 5.0


def run(report: Any) -> None:
    """Measure, and report in milliseconds."""
    tasks = [_task(number) for number in range(TASKS)]
    busy = {(task.task_id, "app") for task in tasks[::7]}
    times = []
    steps = plan(tasks, busy=busy, expired=set())
    for _ in range(RUNS):
        began = time.perf_counter()
        steps = plan(tasks, busy=busy, expired=set())
        times.append((time.perf_counter() - began) * 1000)
    assert len(steps) > TASKS // 2
    p50, p99 = statistics.median(times), sorted(times)[int(RUNS * 0.99)]
    for name, value in (("plan() for 200 tasks, p50", p50), ("plan() for 200 tasks, p99", p99)):
        report.figure(
            name=name, value=round(value, 3), unit="ms", goal=f"<= {GOAL_MS}", holds=value <= GOAL_MS, runs=RUNS
        )


def _task(number: int) -> Task:
    containers = (container_definition("app"), container_definition("side", volumesFrom=[{"sourceContainer": "app"}]))
    task = make_task(*containers, task_id=f"{number:032x}")
    for name in ("app", "side"):
        if number % 5 > 0:
            task = lifecycle.pulled(task, name, "a" * 64, "sha256:" + "b" * 64)
        if number % 5 > 1:
            task = lifecycle.created(task, name, "f" * 64, "boot-1")
        if number % 5 > 2:
            task = lifecycle.running(task, name, "f" * 64, "boot-1", NOW)
    return lifecycle.stop(task, NOW, StopCode.USER_INITIATED, "enough") if number % 5 == 4 else task
