"""From the publication of an assignment to the container's process, beside `podman run -d` of the same container.

Both run the same image, limits, network and mount on the same Podman store, turn by turn. "Started" is the moment the
container's own process writes into a pipe. `podman run -d` is timed until the command returns, which is what the
figure's goal names; its own time to the process is reported beside it.
"""

import os
import select
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.fleet.clock import now
from edge.fleet.devices import find_device
from edge.fleet.folder import Fleet, open_fleet
from edge.fleet.link import FleetLink, new_client_id
from edge.fleet.publishing import publish_newest
from edge.fleet.task_definitions import find
from edge.fleet.tasks import adding, next_revision, stopping_tasks
from edge.model.trust import Role
from tests.support.podman import IMAGE, PodmanService, podman_service
from tests.support.stack import DEVICE, Stack, running_stack

NAME = "start"
RUNS = 30
WARM_UP = 3
GOAL_P50, GOAL_P99 = 0.8, 1.2
COMMAND = "echo started > /pipe/fifo; sleep 1000"


def run(report: Any) -> None:
    """Measure turn by turn, and report ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "podman").mkdir()
        with podman_service(folder / "podman") as podman, running_stack(folder / "stack", podman) as stack:
            ours, returned, theirs = _measure(folder, podman, stack)
    base50, base99 = statistics.median(returned), _p99(returned)
    own50, own99 = statistics.median(ours), _p99(ours)
    figure = report.figure
    figure(name="start p50 / podman run -d p50", value=round(own50 / base50, 3), unit="ratio", goal=f"<= {GOAL_P50}", holds=own50 / base50 <= GOAL_P50, runs=RUNS)  # fmt: skip  # noqa: E501
    figure(name="start p99 / podman run -d p99", value=round(own99 / base99, 3), unit="ratio", goal=f"<= {GOAL_P99}", holds=own99 / base99 <= GOAL_P99, runs=RUNS)  # fmt: skip  # noqa: E501
    for what, values in (
        ("assignment published -> process started", ours),
        ("podman run -d, command returned", returned),
        ("podman run -d -> process started", theirs),
    ):
        figure(name=f"{what}, p50", value=round(statistics.median(values) * 1000, 1), unit="ms", goal="", holds=True, runs=RUNS)  # fmt: skip  # noqa: E501
        figure(name=f"{what}, p99", value=round(_p99(values) * 1000, 1), unit="ms", goal="", holds=True, runs=RUNS)


def _p99(values: list[float]) -> float:
    """Of thirty runs, the slowest."""
    return max(values)


def _measure(folder: Path, podman: PodmanService, stack: Stack) -> tuple[list[float], list[float], list[float]]:
    pipe_folder = folder / "pipe"
    pipe_folder.mkdir()
    stack.kill_agent()
    stack.allow(f'host_paths = ["{pipe_folder}"]')
    stack.start_agent()
    stack.wait_connected()
    fifo = pipe_folder / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    definition = stack.register(
        {
            "name": "app",
            "command": ["sh", "-c", COMMAND],
            "mountPoints": [{"sourceVolume": "pipe", "containerPath": "/pipe"}],
        },
        volumes=[{"name": "pipe", "host": {"sourcePath": str(pipe_folder)}}],
    )
    ours: list[float] = []
    returned: list[float] = []
    theirs: list[float] = []
    with open_fleet(stack.fleet) as fleet:
        settings = fleet.folder.broker_settings(fleet.settings.operator, new_client_id())
        with FleetLink(settings) as link:
            for turn in range(RUNS + WARM_UP):
                own = _one_of_ours(fleet, link, stack, definition, reader)
                whole, process = _one_of_podman(podman, pipe_folder, reader)
                if turn >= WARM_UP:
                    ours.append(own)
                    returned.append(whole)
                    theirs.append(process)
    os.close(reader)
    return ours, returned, theirs


def _one_of_ours(fleet: Fleet, link: FleetLink, stack: Stack, definition: str, reader: int) -> float:
    from edge.cli.task_run import new_task  # noqa: PLC0415

    device = find_device(fleet.database, fleet.settings.cluster, DEVICE)
    task = new_task(device, find(fleet.database, definition))
    next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), device, now(), adding([task]))
    began = time.perf_counter()
    publish_newest(link, fleet.database, device)
    took = _wait(reader) - began
    _settled(stack, task.task_id, "RUNNING")
    device = find_device(fleet.database, fleet.settings.cluster, DEVICE)
    next_revision(
        fleet.database, fleet.signers(Role.DESIRED_STATE), device, now(), stopping_tasks([task.task_id], "measured")
    )
    publish_newest(link, fleet.database, device)
    _settled(stack, task.task_id, "STOPPED")
    return took


def _settled(stack: Stack, task_id: str, status: str) -> None:
    def there() -> bool:
        return any(t["taskId"] == task_id and t["lastStatus"] == status for t in stack.status()["tasks"])

    stack.wait(f"{task_id} {status}", there)


def _one_of_podman(podman: PodmanService, pipe_folder: Path, reader: int) -> tuple[float, float]:
    limits = ("--memory", "32m", "--cpu-shares", "2", "--stop-timeout", "2", *podman.ulimit_flags())
    command = ("run", "-d", *limits, "-v", f"{pipe_folder}:/pipe", IMAGE, "sh", "-c", COMMAND)
    began = time.perf_counter()
    container = podman.run_cli(*command)
    returned = time.perf_counter()
    started = _wait(reader)
    podman.run_cli("rm", "--force", "--time", "0", container)
    return returned - began, min(started, returned) - began


def _wait(reader: int, read: Callable[[int, int], bytes] = os.read) -> float:
    ready, _, _ = select.select([reader], [], [], 30)
    moment = time.perf_counter()
    assert ready, "the container did not start within 30 s"
    read(reader, 4096)
    return moment
