"""A device under load whose agent dies by SIGKILL again and again, and what is left of it."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.model.container_spec import TELEMETRY_SOCKET_NAME
from edge.model.records import READINGS_CRITICAL
from tests.support.publisher import Publisher
from tests.support.stack import Stack

TELEMETRY = """
[telemetry]
containers_seconds = 1
device_seconds = 1
logs = "all"
"""
SPEAKING = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done"
LONGEST_LIFE_SECONDS = 1.5
"""An agent is killed at any time up to this after its start: while it starts, connects, drains, and after."""


@dataclass(frozen=True, slots=True)
class Left:
    """What was found at the end.

    Attributes:
        acknowledged: Readings that were answered as being on the disk.
        unsure: Readings that had no answer.
        lost: Acknowledged ones that did not arrive.
        doubled: Numbers that arrived more than once.
        missing: Streams with records that neither arrived nor are told as lost, with their ranges.
        answers: What the workload met.
    """

    acknowledged: int
    unsure: int
    lost: tuple[int, ...]
    doubled: tuple[int, ...]
    missing: tuple[str, ...]
    recreated: tuple[str, ...]
    answers: dict[str, int]


def start_measuring(stack: Stack) -> None:
    """Let the agent measure and ship as much as it can, and run a service of two and a task that speak."""
    stack.kill_agent()
    toml = stack.device / "agent.toml"
    toml.write_text(toml.read_text() + TELEMETRY)
    stack.start_agent()
    run_speakers(stack)


def run_speakers(stack: Stack) -> str:
    """Run a service of two tasks and a task that starts again, all of which speak; returns that task's id."""
    stack.wait_connected()
    speaking = {"name": "app", "command": ["/bin/sh", "-c", SPEAKING]}
    stack.register(speaking, family="web")
    stack.edge("service", "create", "web", "--task-definition", "web", "--desired-count", "2")
    restarting = speaking | {"restartPolicy": {"enabled": True}}
    single = stack.run_task(stack.register(restarting, family="single"))
    stack.wait("three containers run", lambda: len(stack.running()) == 3)
    return single


def publishing_folder(stack: Stack) -> Path:
    """Where the socket of one of the containers is."""
    return next(stack.state_dir.rglob(TELEMETRY_SOCKET_NAME)).parent


@contextmanager
def collector(stack: Stack) -> Iterator[None]:
    """`edge telemetry collect`, in a process of its own."""
    command = (sys.executable, "-m", "edge", "telemetry", "collect", "--fleet", str(stack.fleet))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def arrived(stack: Stack) -> Counter[int]:
    """How often each number arrived."""
    lines = stack.edge("telemetry", "export", "--stream", READINGS_CRITICAL.name).splitlines()
    return Counter(json.loads(line)["record"]["data"]["number"] for line in lines)


def missing(stack: Stack) -> tuple[str, ...]:
    """What is unaccounted for, of each stream and epoch."""
    accounts = stack.json("telemetry", "check", expect=None)["accounts"]
    return tuple(f"{one['stream']} {one['epoch']}: {one['missing']}" for one in accounts if one["missing"])


def kill_under_load(stack: Stack, kills: int, chance: random.Random) -> Left:
    """Kill the agent so many times, let the last one hand over everything, and see what is left."""
    before = {container_id for container_id, _ in stack.running().values()}
    with collector(stack):
        with Publisher(publishing_folder(stack)) as publisher:
            for number in range(kills):
                live_and_die(stack, chance)
                if number % 100 == 99:
                    sys.stdout.write(f"{number + 1} kills, {len(publisher.acknowledged)} readings acknowledged\n")
                    sys.stdout.flush()
            answered = len(publisher.acknowledged)
            try:
                stack.wait("readings after the last kill", lambda: len(publisher.acknowledged) > answered + 10)
            except AssertionError as error:
                raise AssertionError(f"{publisher.answers}\n{error}") from error
        wanted = set(publisher.acknowledged)
        stack.wait("everything to arrive", lambda: wanted <= set(arrived(stack)) and not missing(stack), 120)
        found = arrived(stack)
        left = missing(stack)
    after = {container_id for container_id, _ in stack.running().values()}
    return Left(
        acknowledged=len(wanted),
        unsure=len(publisher.unsure),
        lost=tuple(sorted(wanted - set(found))),
        doubled=tuple(number for number, count in found.items() if count > 1),
        missing=left,
        recreated=tuple(sorted(before ^ after)),
        answers=dict(publisher.answers),
    )


def live_and_die(stack: Stack, chance: random.Random) -> None:
    """Let the agent live for a while, kill it, and start the next one."""
    time.sleep(chance.uniform(0, LONGEST_LIFE_SECONDS))
    stack.kill_agent()
    stack.start_agent()
