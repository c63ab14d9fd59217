"""Container logs as Podman streams them: frames of 8 header bytes and a line, the time in front.

Podman 4.3.1 sends no HTTP header before the first line is there, so whoever follows a silent container waits inside
the request itself. The socket is our own here, to be able to end that wait from another thread.
"""

import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from edge.agent.adapters.podman.api import API_VERSION, refusal
from edge.agent.engine.ports import LogLine
from edge.errors import EngineUnavailableError, NoSuchContainerError

_HEADER: Final = struct.Struct(">BxxxI")
_STDERR: Final = 2
_MAXIMUM_FRAME: Final = 1024 * 1024
_READ_SECONDS: Final = 30.0
_REFUSED: Final = 400


class LogStream(Iterator[LogLine]):
    """The lines of one container; asked for at the first `next`.

    `close` may be called from any thread, also while another waits for a line, which then gets the end.
    """

    def __init__(self, service: Path, runtime_id: str, parameters: dict[str, str], *, follow: bool) -> None:
        self._service = service
        self._path = f"/v{API_VERSION}/libpod/containers/{runtime_id}/logs?{urlencode(parameters)}"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(None if follow else _READ_SECONDS)
        self._response: http.client.HTTPResponse | None = None
        self._closed = False
        self._reading = threading.Lock()

    def __next__(self) -> LogLine:
        with self._reading:
            return self._next()

    def _next(self) -> LogLine:
        try:
            if self._response is None:
                self._response = self._ask()
            header = self._read(self._response, _HEADER.size)
            if len(header) == _HEADER.size:
                stream, size = _HEADER.unpack(header)
                if size > _MAXIMUM_FRAME:
                    raise EngineUnavailableError(f"Podman's log stream is out of step (a frame of {size} bytes)")
                return parse_line(stream, self._read(self._response, size))
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not self._closed:
                self._free()
                raise EngineUnavailableError(f"Podman's log stream broke off: {error}") from error
        self._free()
        raise StopIteration

    def close(self) -> None:
        """Free the connection; harmless when repeated."""
        self._closed = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        # Whoever reads right now wakes up at the end of the stream and frees it itself.
        if self._reading.acquire(blocking=False):
            self._free()
            self._reading.release()

    def _ask(self) -> http.client.HTTPResponse:
        self._socket.connect(str(self._service))
        self._socket.sendall(f"GET {self._path} HTTP/1.1\r\nHost: podman\r\nConnection: close\r\n\r\n".encode())
        response = http.client.HTTPResponse(self._socket)
        response.begin()
        if response.status >= _REFUSED:
            body = response.read(64 * 1024)
            self._free()
            raise refusal(response.status, body, "CannotReadLogError", NoSuchContainerError)
        return response

    def _free(self) -> None:
        if self._response is not None:
            self._response.close()
        self._socket.close()

    @staticmethod
    def _read(response: http.client.HTTPResponse, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = response.read(size - len(data))
            if not part:
                return b""
            data += part
        return data


def parse_line(stream: int, frame: bytes) -> LogLine:
    """Take a frame apart: `<RFC 3339 time> <text>`."""
    text = frame.decode(errors="replace").rstrip("\r\n")
    time, _, line = text.partition(" ")
    return LogLine(time, "stderr" if stream == _STDERR else "stdout", line)
