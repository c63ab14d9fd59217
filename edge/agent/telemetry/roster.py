"""Which containers run now, as the engine tells it and the telemetry's threads ask it."""

import threading
from dataclasses import replace
from typing import Final

from edge.agent.telemetry.ports import RunningContainer

_MOST_RESTARTS: Final = 1024
"""Containers whose restarts are remembered; those that ran least recently are forgotten first."""


class Roster:
    """May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, RunningContainer] = {}
        self._restarts: dict[tuple[str, str], tuple[int, str, int]] = {}

    def runs(self, container: RunningContainer) -> RunningContainer:
        """Note that a container runs, and return it with its restarts counted; told twice it is counted once."""
        key = (container.task_id, container.name)
        with self._lock:
            count, runtime_id, pid = self._restarts.pop(key, (-1, "", 0))
            if (runtime_id, pid) != (container.runtime_id, container.pid):
                count += 1
            self._restarts[key] = (count, container.runtime_id, container.pid)
            while len(self._restarts) > _MOST_RESTARTS:
                self._restarts.pop(next(iter(self._restarts)))
            counted = replace(container, restarts=count)
            self._running[container.runtime_id] = counted
        return counted

    def ended(self, runtime_id: str) -> RunningContainer | None:
        """Note that a container's process is gone, and return what it was."""
        with self._lock:
            return self._running.pop(runtime_id, None)

    def forget(self, task_id: str) -> None:
        """The task is gone for good."""
        with self._lock:
            for key in [key for key in self._restarts if key[0] == task_id]:
                del self._restarts[key]

    def running(self) -> tuple[RunningContainer, ...]:
        """Return all that run now."""
        with self._lock:
            return tuple(self._running.values())
