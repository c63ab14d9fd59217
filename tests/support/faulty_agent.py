"""The real agent with a trap: at one named step of a task's life it kills somebody with SIGKILL, once.

Steps are the calls to the container engine and the commits to the store: `create:before`, `create:during`,
`create:after`, `commit-RUNNING:before` … The trap is read from the environment:
`FAULT_AT` (a step, or nothing), `FAULT_PID_FILE` (whose process id to kill; empty for the agent itself),
`FAULT_LOG` (a file; every step that was passed is a line of it, the one that killed is marked).
"""

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.agent import app
from edge.agent.adapters.podman import PodmanEngine
from edge.agent.config import load_config
from edge.agent.store.state import Change, StateStore
from edge.model.task import ContainerStatus

CALLS = ("list_labelled", "image", "pull", "create", "start", "watch_exit", "stop", "inspect", "remove")
DURING_SECONDS = 0.006


class Trap:
    def __init__(self) -> None:
        self._at = os.environ.get("FAULT_AT", "")
        self._pid_file = os.environ.get("FAULT_PID_FILE", "")
        self._log = Path(os.environ["FAULT_LOG"])
        self._lock = threading.Lock()
        self._sprung = "KILLED" in self._log.read_text() if self._log.exists() else False

    def around(self, step: str, call: Callable[[], Any]) -> Any:
        self._pass(f"{step}:before")
        fired = threading.Event()

        def during() -> None:
            fired.set()
            self._pass(f"{step}:during")

        timer = threading.Timer(DURING_SECONDS, during)
        timer.daemon = True
        timer.start()
        result = call()
        timer.cancel()
        if not fired.is_set():
            during()
        self._pass(f"{step}:after")
        return result

    def _pass(self, step: str) -> None:
        with self._lock:
            hit = step == self._at and not self._sprung
            self._sprung = self._sprung or hit
            with self._log.open("a") as log:
                log.write(f"{step}{' KILLED' if hit else ''}\n")
            if hit:
                pid = int(Path(self._pid_file).read_text()) if self._pid_file else os.getpid()
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.05 if self._pid_file else 10)


class TrappedEngine(PodmanEngine):
    """Every call of the port goes through the trap."""

    trap: Trap

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CALLS:
            return found
        return lambda *args, **kwargs: TrappedEngine.trap.around(name, lambda: found(*args, **kwargs))


class TrappedStore(StateStore):
    """Every commit goes through the trap."""

    def commit(self, change: Change) -> None:
        step = f"commit-{_what(change)}"
        TrappedEngine.trap.around(step, lambda: super(TrappedStore, self).commit(change))


def _what(change: Change) -> str:
    if "desired" in change.meta:
        return "revision"
    statuses = [c.status for task in change.tasks.values() if task for c in task.containers]
    return ContainerStatus(max(statuses)).name if statuses else "other"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    logging.basicConfig(level="INFO")
    TrappedEngine.trap = Trap()
    app.run(load_config(parser.parse_args().config), make_engine=TrappedEngine, make_store=TrappedStore)
