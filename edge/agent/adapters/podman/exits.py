"""When a container's process ends: a pidfd for each, one sleeping thread for all.

No event stream: Podman's can close or leak without a word, keeps the service up, and dies with it. A pidfd is the
kernel's own word, and works while Podman's service is dead.
"""

import logging
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

Exited = Callable[[str], None]


class ExitWatcher:
    """Calls back once for each watched process that ended; the thread runs only while there is something to watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[str, Exited]] = {}
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._running = False
        self._closed = False

    def watch(self, runtime_id: str, pid: int, exited: Exited) -> None:
        """Call `exited(runtime_id)` from the watching thread when the process is gone; here when it is already."""
        descriptor = _open_if_it_is(runtime_id, pid)
        if descriptor is None:
            exited(runtime_id)
            return
        with self._lock:
            if self._closed:
                os.close(descriptor)
                return
            self._watched[descriptor] = (runtime_id, exited)
            self._poll.register(descriptor, select.EPOLLIN)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="exits", daemon=True).start()

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            self._closed = True
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._wake:
                    self._ended(descriptor)
            with self._lock:
                if self._closed:
                    for descriptor in self._watched:
                        os.close(descriptor)
                    self._watched.clear()
                if not self._watched:
                    self._running = False
                    return

    def _ended(self, descriptor: int) -> None:
        with self._lock:
            runtime_id, exited = self._watched.pop(descriptor)
            self._poll.unregister(descriptor)
            os.close(descriptor)
        try:
            exited(runtime_id)
        except Exception:  # noqa: BLE001 - one listener's failure must not silence the others
            _log.exception("cannot tell that container %s ended", runtime_id[:12])


def is_process_of(runtime_id: str, pid: int) -> bool:
    """Say whether the process is (still) the container's: a process id may be somebody else's by now."""
    return pid > 0 and runtime_id in _cgroup_of(pid)


def _open_if_it_is(runtime_id: str, pid: int) -> int | None:
    if pid <= 0:
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # Asked after the pidfd is held: from here on the number cannot be given to another process unnoticed.
    if not is_process_of(runtime_id, pid):
        os.close(descriptor)
        return None
    return descriptor


def _cgroup_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
