"""A device in bad days: half an hour of faults drawn at random, and every record and every container accounted for.

`EDGE_SOAK_MINUTES` sets how long, `EDGE_SOAK_SEED` repeats a run. The state directory is on a small disk of its own, so
that it can be full.
"""

import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.fault_days import FLOOD, BadDays
from tests.support.killed_agent import TELEMETRY, arrived, collector, missing, run_speakers
from tests.support.loop_disk import loop_disk
from tests.support.podman import podman_service
from tests.support.publisher import Publisher
from tests.support.stack import Stack, running_stack

NAME = "offline"
MINUTES = float(os.environ.get("EDGE_SOAK_MINUTES", "30"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", str(int(time.time()))))
DISK_MEBIBYTES = 1024
"""The outbox leaves 256 of them free; `disk_full` takes these too."""
PATIENCE_SECONDS = 420.0
"""A device that crashed often waits up to five minutes before it starts a container again, or connects."""


@dataclass(slots=True)
class Watch:
    """Containers by name: the same name with another id was made anew; one that is gone was replaced."""

    seen: dict[str, str] = field(default_factory=dict)
    made_anew: list[str] = field(default_factory=list)

    def look(self, stack: Stack) -> None:
        """Remember what is there now."""
        for name, container in stack.containers().items():
            if self.seen.setdefault(name, container["Id"]) != container["Id"]:
                self.made_anew.append(name)
                self.seen[name] = container["Id"]

    def replaced(self, stack: Stack, killed: set[str]) -> list[str]:
        """Service tasks and tasks that were started again elsewhere though nobody had killed them."""
        there = stack.running()
        kept = {name for name in self.seen if "-flood-" not in name} - killed
        return sorted(kept - set(there))


def run(report: Any) -> None:
    """Everything on one device."""
    chance = random.Random(SEED)
    sys.stdout.write(f"seed {SEED}, {MINUTES:g} minutes\n")
    with (
        tempfile.TemporaryDirectory(prefix="edge-soak-") as name,
        loop_disk(Path(name), DISK_MEBIBYTES) as disk,
        podman_service(Path(name) / "podman") as podman,
        running_stack(Path(name) / "stack", podman) as stack,
    ):
        _move(stack, disk.folder)
        days = BadDays(stack, podman, disk.folder, chance)
        days.start_agent()
        single = run_speakers(stack)
        stack.register({"name": "app", "command": ["/bin/sh", "-c", FLOOD]}, family="flood")
        watch, faults = Watch(), Counter[str]()
        watch.look(stack)
        folder = next((stack.state_dir / "readings" / single).iterdir())
        with collector(stack):
            with Publisher(folder) as publisher:
                end = time.monotonic() + MINUTES * 60
                while time.monotonic() < end:
                    fault = chance.choice(days.faults)
                    _say(f"{fault.__name__}: {len(publisher.acknowledged)} readings acknowledged")
                    faults[fault.__name__] += 1
                    fault()
                    watch.look(stack)
                    time.sleep(chance.uniform(0, 5))
                days.heal()
                _say("healed")
                stack.wait("the agent to connect", lambda: stack.status()["connection"]["connected"], PATIENCE_SECONDS)
            wanted = set(publisher.acknowledged)
            _settled(stack, wanted)
            found, unaccounted = arrived(stack), missing(stack)
        watch.look(stack)
        replaced = watch.replaced(stack, days.killed)
        if replaced or unaccounted or watch.made_anew or wanted - set(found):
            _tell_state(stack)
    _say(f"answers: {dict(publisher.answers)}")
    for what, count in sorted(faults.items()):
        report.figure(name=f"fault: {what}", value=count, unit="", goal="", holds=True, runs=1)
    report.figure(name="readings acknowledged", value=len(wanted), unit="", goal="", holds=True, runs=1)
    report.figure(name="readings without an answer", value=len(publisher.unsure), unit="", goal="", holds=True, runs=1)
    for what, bad in (
        ("acknowledged readings that did not arrive", sorted(wanted - set(found))),
        ("readings that arrived twice", [number for number, count in found.items() if count > 1]),
        ("streams with records unaccounted for", list(unaccounted)),
        ("containers made anew", watch.made_anew),
        ("containers replaced without cause", replaced),
    ):
        if bad:
            _say(f"{what}: {bad[:10]}")
        report.figure(name=what, value=len(bad), unit="", goal="<= 0", holds=not bad, runs=1)


def _move(stack: Stack, disk: Path) -> None:
    """The agent's state goes to the disk."""
    stack.kill_agent()
    toml = stack.device / "agent.toml"
    state = 'state_dir = "state"'
    assert state in toml.read_text()
    toml.write_text(toml.read_text().replace(state, f'state_dir = "{disk / "state"}"') + TELEMETRY)
    stack.state_dir = disk / "state"


def _settled(stack: Stack, wanted: set[int]) -> None:
    """Wait until everything has arrived and runs; what has not is counted afterwards."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        three = [name for name in stack.running() if "-flood-" not in name]
        if wanted <= set(arrived(stack)) and not missing(stack) and len(three) == 3:
            return
        time.sleep(1)


def _tell_state(stack: Stack) -> None:
    """What somebody needs who was not there: containers, tasks, and the end of the agent's log."""
    for name, container in sorted(stack.containers().items()):
        _say(f"{name}: {container['State']} {container['Status']} exit {container.get('ExitCode')}")
    _say(stack.edge("task", "ls", "--all", expect=None))
    _say("\n".join(stack.agent_log.read_text(errors="replace").splitlines()[-200:]))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
