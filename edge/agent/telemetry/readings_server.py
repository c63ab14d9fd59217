"""The sockets through which workloads publish readings: one for each container, one thread for all.

A container's socket is in a folder of its own, and the folder is what is mounted into the container: after the agent
was restarted a new socket stands there under the old name. The folders outlive a reboot, because Podman starts no
container whose mount has no source.
"""

import logging
import os
import queue
import selectors
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.agent.telemetry.ports import Records
from edge.agent.telemetry.readings import Origin
from edge.agent.telemetry.readings_connection import Admission
from edge.agent.telemetry.readings_loop import News, Opened, ReadingsLoop
from edge.errors import StoreError
from edge.files import store_error
from edge.model.container_spec import TELEMETRY_SOCKET_NAME

_BACKLOG: Final = 16

_log = logging.getLogger(__name__)


class ReadingsServer:
    """Listens for each container that was `opened`, until it is closed.

    Args:
        folder: Where the containers' folders are; made when it is needed.
        records: Takes the readings.
        monotonic: Seconds of the boot.
        records_per_second: What the containers of one task may publish together.
    """

    def __init__(
        self, folder: Path, records: Records, monotonic: Callable[[], float], *, records_per_second: int
    ) -> None:
        self._folder = folder
        self._admission = Admission(records, monotonic, records_per_second)
        self._lock = threading.Lock()
        self._listeners: set[Origin] = set()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread: threading.Thread | None = None
        self._closed = False

    def folder_of(self, origin: Origin) -> Path:
        """Return what is mounted into the container."""
        return self._folder / origin.task_id / origin.container

    def open(self, origin: Origin) -> Path:
        """Listen for a container, if it is not done already, and return the folder to mount into it.

        Raises:
            StoreError: The folder or the socket cannot be made.
        """
        folder = self.folder_of(origin)
        with self._lock:
            if origin in self._listeners or self._closed:
                return folder
            try:
                listener = _listen(folder)
            except OSError as error:
                raise store_error(f"cannot make the socket for readings in {folder}", error) from error
            self._listeners.add(origin)
            self._tell(Opened(origin, listener))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="readings", daemon=True)
                self._thread.start()
        return folder

    def start(self) -> None:
        """Listen again for the containers that were made with a socket, by an agent before this one."""
        for folder in sorted(self._folder.glob("*/*/")):
            origin = Origin(folder.parent.name, folder.name)
            try:
                self.open(origin)
            except StoreError as error:
                _log.warning("container %s of task %s cannot publish: %s", origin.container, origin.task_id, error)

    def release(self, task_id: str) -> None:
        """The task's containers are gone: take their sockets away."""
        with self._lock:
            for origin in [origin for origin in self._listeners if origin.task_id == task_id]:
                self._listeners.remove(origin)
                self._tell(origin)
        shutil.rmtree(self._folder / task_id, ignore_errors=True)

    def close(self) -> None:
        """End; the folders stay for the next agent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._tell(None)
            thread = self._thread
        if thread is not None:
            thread.join()
        os.close(self._wake)

    def _tell(self, news: News) -> None:
        self._news.put(news)
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            ReadingsLoop(selector, self._wake, self._news, self._admission).run()


def _listen(folder: Path) -> socket.socket:
    """The host keeps others out by the mode of the state directory; inside, every user of the container may write."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    (folder / TELEMETRY_SOCKET_NAME).unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX)
    try:
        # A socket's path has at most 107 bytes (unix(7)); through the folder's descriptor any folder will do.
        listener.bind(f"/proc/self/fd/{descriptor}/{TELEMETRY_SOCKET_NAME}")
        (folder / TELEMETRY_SOCKET_NAME).chmod(0o666)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    finally:
        os.close(descriptor)
    return listener
