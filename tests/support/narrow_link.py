"""A slow TCP connection: it stands between a client and a server on loopback, and counts what it lets through."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

_PIECE = 4096
_TICK_SECONDS = 0.004
_PATIENCE_SECONDS = 10.0


class NarrowLink:
    """`with NarrowLink(port) as link:`; all connections share `bytes_per_second` towards the client.

    Attributes:
        bytes_per_second: May be changed at any time; 0 lets nothing through.
        passed: Bytes that came through towards the client.
    """

    def __init__(self, target_port: int, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self.passed = 0
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._turn = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every open connection; new ones come through."""
        for end in tuple(self._open):
            _shut(end)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        _shut(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join(_PATIENCE_SECONDS)

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with self._listener, suppress(OSError):
            while not self._ended.is_set():
                near, _ = self._listener.accept()
                self._start(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(self._target) as far:
            self._open |= {near, far}
            upwards = self._start(self._forward, near, far, lambda _: None)
            self._forward(far, near, self._wait_for_its_turn)
            upwards.join(_PATIENCE_SECONDS)
            self._open -= {near, far}

    def _forward(self, source: socket.socket, target: socket.socket, passing: Callable[[int], None]) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                passing(len(data))
                target.sendall(data)
        for end in (source, target):
            _shut(end)

    def _wait_for_its_turn(self, count: int) -> None:
        with self._turn:
            left = float(count)
            while left > 0 and not self._ended.wait(_TICK_SECONDS):
                left -= self.bytes_per_second * _TICK_SECONDS
            self.passed += count


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
