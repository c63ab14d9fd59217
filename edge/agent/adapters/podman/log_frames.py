"""Container logs as Podman streams them: frames of 8 header bytes and a line, times in front."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import requests
from urllib3.exceptions import HTTPError

from edge.agent.engine.ports import LogLine
from edge.errors import EngineUnavailableError

_HEADER: Final = struct.Struct(">BxxxI")
_STDERR: Final = 2
_MAXIMUM_FRAME: Final = 1024 * 1024


class LogStream(Iterator[LogLine]):
    """Lines of one answer; `close` may be called from any thread, also while another waits for the next line."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> "LogStream":
        return self

    def __next__(self) -> LogLine:
        header = self._read(_HEADER.size)
        if len(header) < _HEADER.size:
            self.close()
            raise StopIteration
        stream, size = _HEADER.unpack(header)
        if size > _MAXIMUM_FRAME:
            self.close()
            raise EngineUnavailableError(f"Podman's log stream is out of step (a frame of {size} bytes)")
        return parse_line(stream, self._read(size))

    def close(self) -> None:
        """Free the connection; a thread that waits for a line gets the end."""
        if self._closed:
            return
        self._closed = True
        connection = getattr(self._response.raw, "connection", None) or getattr(self._response.raw, "_connection", None)
        sock = getattr(connection, "sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        else:
            self._response.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                part = self._response.raw.read(size - len(data))
            except (HTTPError, OSError, ValueError) as error:
                if self._closed:
                    return b""
                raise EngineUnavailableError(f"Podman's log stream broke off: {error}") from error
            if not part:
                return data if not self._closed else b""
            data += part
        return data


def parse_line(stream: int, frame: bytes) -> LogLine:
    """Take a frame apart: `<RFC 3339 time> <text>`."""
    text = frame.decode(errors="replace").rstrip("\r\n")
    time, _, line = text.partition(" ")
    return LogLine(time, "stderr" if stream == _STDERR else "stdout", line)
