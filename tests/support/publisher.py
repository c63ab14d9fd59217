"""A workload that publishes numbered critical readings through its container's socket, and remembers each answer."""

import json
import os
import socket
import threading
import time
from collections import Counter
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from edge.model.container_spec import TELEMETRY_SOCKET_NAME

PAUSE_SECONDS: Final = 0.02
_ANSWER_SECONDS: Final = 10.0


class Publisher:
    """One reading after the other, each with a number of its own, until it is closed. A context manager.

    Args:
        folder: Where the container's socket is; an agent that starts again puts a new one there.

    Attributes:
        acknowledged: Numbers that were answered with 204: they are on the disk.
        unsure: Numbers without an answer: there or not, never twice.
        answers: How often each status, or kind of failure, was met.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher")
        self.acknowledged: list[int] = []
        self.unsure: list[int] = []
        self.answers: Counter[str] = Counter()

    def _run(self) -> None:
        number = 0
        while not self._closed.is_set():
            try:
                with _connect(self._folder) as connection:
                    while not self._closed.wait(PAUSE_SECONDS):
                        number += 1
                        self.unsure.append(number)
                        self._publish(connection, number)
            except (OSError, HTTPException) as error:
                self.answers[type(error).__name__] += 1
                time.sleep(PAUSE_SECONDS)

    def _publish(self, connection: HTTPConnection, number: int) -> None:
        connection.request("POST", "/v1/readings?promise=critical", json.dumps({"number": number}))
        answer = connection.getresponse()
        answer.read()
        self.answers[str(answer.status)] += 1
        if answer.status == HTTPStatus.ACCEPTED:
            return
        self.unsure.remove(number)
        if answer.status == HTTPStatus.NO_CONTENT:
            self.acknowledged.append(number)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()


class _Connection(HTTPConnection):
    """HTTP on a Unix socket; a context manager."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected
        # A connection that was lost is not made anew behind our back: its request would be counted as one.
        self.auto_open = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(folder: Path) -> _Connection:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(_ANSWER_SECONDS)
    # A socket's path has at most 107 bytes; through the folder's descriptor any folder will do.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        connected.connect(f"/proc/self/fd/{descriptor}/{TELEMETRY_SOCKET_NAME}")
    except OSError:
        connected.close()
        raise
    finally:
        os.close(descriptor)
    return _Connection(connected)
