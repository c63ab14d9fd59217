"""Threads for what blocks: made when there is work, gone when there has been none for a while.

An idle agent has no idle threads (each costs memory), and a burst of tasks is not one after the other.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)
_IDLE_SECONDS: Final = 5.0


class Workers:
    """At most `size` threads that run what is submitted, in order."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._waiting = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run `job` soon, on a thread of ours; it must not raise (what it raises is logged and lost)."""
        with self._lock:
            self._jobs.put(job)
            if self._waiting < self._jobs.qsize() and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - a worker outlives what it was given
                _log.exception("%s: a job failed", self._name)

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            self._waiting += 1
        try:
            return self._jobs.get(timeout=_IDLE_SECONDS)
        except queue.Empty:
            with self._lock:
                if self._jobs.qsize():
                    return self._jobs.get()
                self._threads -= 1
                return None
        finally:
            with self._lock:
                self._waiting -= 1
