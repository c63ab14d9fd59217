"""Agent, Podman's service and broker, each killed with SIGKILL at every step of a task's life.

What must be left, whoever died and whenever: the task gets where it should, one container, started once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.podman import PodmanService
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto, pytest.mark.timeout(180)]

PROGRAM = ("-m", "tests.support.faulty_agent")
CALLS_UP = ("list_labelled", "image", "create", "start", "watch_exit")
CALLS_DOWN = ("inspect", "stop")
COMMITS_UP = ("commit-revision", "commit-RUNNING")
COMMITS_DOWN = ("commit-STOPPED",)
POINTS = ("before", "after")
UP = [f"{step}:{point}" for step in (*CALLS_UP, *COMMITS_UP) for point in POINTS] + ["create:during", "start:during"]
DOWN = [f"{step}:{point}" for step in (*CALLS_DOWN, *COMMITS_DOWN) for point in POINTS] + ["stop:during"]


class Case:
    """A stack, a task that notes each start of its container, and somebody who will die."""

    def __init__(self, folder: Path, podman: PodmanService, victim: str, step: str) -> None:
        self.stack = Stack(folder, podman)
        self.podman = podman
        self.victim = victim
        self.step = step
        self.log = folder / "steps"
        self.data = folder / "data"
        self.data.mkdir()
        self.stack.allow(f'host_paths = ["{self.data}"]')
        self.pid_file = folder / "victim.pid"
        self.stack.broker.start()
        self.definition = self.stack.register(
            {
                "name": "app",
                "command": ["sh", "-c", "echo start >> /data/starts; sleep 1000"],
                "mountPoints": [{"sourceVolume": "data", "containerPath": "/data"}],
            },
            volumes=[{"name": "data", "host": {"sourcePath": str(self.data)}}],
        )

    def start_agent(self) -> None:
        victims = {"agent": "", "podman": str(self.podman.pid), "broker": str(self.stack.broker.pid)}
        self.pid_file.write_text(victims[self.victim])
        os.environ.update(
            FAULT_AT=self.step,
            FAULT_PID_FILE="" if self.victim == "agent" else str(self.pid_file),
            FAULT_LOG=str(self.log),
        )
        self.stack.start_agent(program=PROGRAM)

    def revive(self) -> bool:
        """Start whoever died again, as a supervisor would; True when somebody had."""
        if self.victim == "agent" and self.stack.agent_ended():
            self.start_agent()
            return True
        if self.victim == "podman" and self.podman.died():
            self.podman.start()
            return True
        if self.victim == "broker" and self.stack.broker.died():
            self.stack.broker.start()
            # A broker that is killed may have lost what it had not saved: this is the operator's remedy.
            self.stack.edge("fleet", "publish")
            return True
        return False

    def wait_for(self, status: str) -> None:
        def reached() -> bool:
            self.revive()
            tasks = self.stack.status()["tasks"]
            return bool(tasks) and tasks[0]["lastStatus"] == status

        self.stack.wait(f"{status} after {self.victim} was killed at {self.step}", reached)

    def starts(self) -> int:
        file = self.data / "starts"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def was_killed(self) -> bool:
        return f"{self.step} KILLED" in self.log.read_text()


@contextmanager
def case(folder: Path, podman: PodmanService, victim: str, step: str) -> Iterator[Case]:
    made = Case(folder, podman, victim, step)
    try:
        yield made
    finally:
        made.stack.kill_agent()
        made.stack.broker.kill()
        if podman.died():
            podman.start()
        podman.run_cli("rm", "--all", "--force", "--time", "0", check=False)


@pytest.mark.parametrize("victim", ["agent", "podman", "broker"])
@pytest.mark.parametrize("step", UP)
def test_a_task_that_starts_runs_once_whoever_is_killed(
    tmp_path: Path, podman: PodmanService, victim: str, step: str
) -> None:
    with case(tmp_path, podman, victim, step) as made:
        made.stack.edge("task", "run", made.definition, "--no-wait")
        made.start_agent()
        made.wait_for("RUNNING")
        made.stack.wait("the trap to be sprung", lambda: made.revive() or made.was_killed())
        made.wait_for("RUNNING")
        containers = made.stack.containers()
        assert [c["State"] for c in containers.values()] == ["running"], "no duplicate, none lost"
        task = made.stack.status()["tasks"][0]
        assert task["containers"][0]["runtimeId"] == next(iter(containers.values()))["Id"]
        assert made.starts() == 1


@pytest.mark.parametrize("victim", ["agent", "podman", "broker"])
@pytest.mark.parametrize("step", DOWN)
def test_a_task_that_stops_is_stopped_and_stays_so_whoever_is_killed(
    tmp_path: Path, podman: PodmanService, victim: str, step: str
) -> None:
    with case(tmp_path, podman, victim, step) as made:
        made.stack.edge("task", "run", made.definition, "--no-wait")
        made.start_agent()
        made.wait_for("RUNNING")
        before = made.stack.containers()
        task_id = made.stack.status()["tasks"][0]["taskId"]
        made.stack.edge("task", "stop", task_id, "--no-wait")
        made.wait_for("STOPPED")
        made.stack.wait("the trap to be sprung", lambda: made.revive() or made.was_killed())
        made.wait_for("STOPPED")
        # Podman says `stopped` until its clean-up is through.
        made.stack.wait("exited", lambda: {c["State"] for c in made.stack.containers().values()} == {"exited"})
        assert [c["Id"] for c in made.stack.containers().values()] == [c["Id"] for c in before.values()]
        task = made.stack.status()["tasks"][0]
        assert (task["stopCode"], made.starts()) == ("UserInitiated", 1)
