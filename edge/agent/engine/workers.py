"""Threads for what blocks: made when there is work, gone when there has been none for a while.

An idle agent has no idle threads (each costs memory), and a burst of tasks is not one after the other.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)
_IDLE_SECONDS: Final = 5.0


class Workers:
    """At most `size` threads that run what is submitted, begun in order."""

    def __init__(self, name: str, size: int, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._name = name
        self._size = size
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()
        self._jobs: deque[Callable[[], None]] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` soon, on a thread of ours; it must not raise (what it raises is logged and lost)."""
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) > self._idle and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            else:
                self._changed.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - a worker outlives what it was given
                _log.exception("%s: a job failed", self._name)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._jobs, self._idle_seconds)
            self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            return None
