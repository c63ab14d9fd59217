"""When a container's process ends: a pidfd for each, one sleeping thread for all.

No event stream: Podman's can close or leak without a word, keeps the service up, and dies with it. A pidfd is the
kernel's own word, and works while Podman's service is dead. So is its count of processes killed for want of memory:
before 5.0 Podman looks for conmon's `oom` file where conmon does not put it, and never says so (containers/podman
pull request 21523).
"""

import logging
import os
import re
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

Exited = Callable[[str], None]
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class _Watched:
    runtime_id: str
    exited: Exited
    memory_events: Path


class ExitWatcher:
    """Calls back once for each watched process that ended; the thread runs only while there is something to watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, _Watched] = {}
        self._out_of_memory: set[str] = set()
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
            self._watched[descriptor] = _Watched(runtime_id, exited, _memory_events(pid))
            self._out_of_memory.discard(runtime_id)
            self._poll.register(descriptor, select.EPOLLIN)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="exits", daemon=True).start()

    def was_out_of_memory(self, runtime_id: str) -> bool:
        """Say whether the kernel killed a process of it for want of memory, in the last run that was watched here."""
        return runtime_id in self._out_of_memory

    def forget(self, runtime_id: str) -> None:
        """The container is gone."""
        self._out_of_memory.discard(runtime_id)

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
            watched = self._watched.pop(descriptor)
            self._poll.unregister(descriptor)
            os.close(descriptor)
        # Now or never: conmon's clean-up, which has just begun, takes the cgroup away.
        if _count_kills(watched.memory_events) > 0:
            self._out_of_memory.add(watched.runtime_id)
        try:
            watched.exited(watched.runtime_id)
        except Exception:  # noqa: BLE001 - one listener's failure must not silence the others
            _log.exception("cannot tell that container %s ended", watched.runtime_id[:12])


def is_process_of(runtime_id: str, pid: int) -> bool:
    """Say whether the process is (still) the container's: a process id may be somebody else's by now, or a zombie's."""
    return pid > 0 and runtime_id in _read(f"/proc/{pid}/cgroup") and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    # The state follows the name, which may itself hold a bracket (proc(5)).
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] in ([], ["Z"], ["X"])


def _memory_events(pid: int) -> Path:
    """Where the kernel counts; both files have a line `oom_kill <count>` (cgroup-v1/memory.rst, cgroup-v2.rst)."""
    groups = [line.split(":", 2) for line in _read(f"/proc/{pid}/cgroup").splitlines()]
    for _, controllers, path in groups:
        if "memory" in controllers.split(","):
            return _CGROUP / "memory" / path.lstrip("/") / "memory.oom_control"
    unified = next((path for _, controllers, path in groups if not controllers), "/")
    return _CGROUP / unified.lstrip("/") / "memory.events"


def _count_kills(events: Path) -> int:
    found = re.search(r"^oom_kill (\d+)$", _read(str(events)), re.MULTILINE)
    return int(found[1]) if found else 0


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


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
