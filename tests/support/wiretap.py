"""Between a client and a server: passes bytes on, and keeps all of them."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Wiretap:
    """`with Wiretap(port) as tap:` listens on `tap.port`; `tap.heard` is what passed, both ways, as it came."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._pieces: list[bytes] = []
        self._lock = threading.Lock()
        self._half: set[frozenset[int]] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def heard(self) -> bytes:
        return b"".join(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for one, other in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pass_on, args=(one, other), daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self._pieces.append(data)
                other.sendall(data)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        self._done(one, other)

    def _done(self, one: socket.socket, other: socket.socket) -> None:
        """Close both, whoever comes last."""
        pair = frozenset((id(one), id(other)))
        with self._lock:
            if pair in self._half:
                self._half.discard(pair)
                one.close()
                other.close()
            else:
                self._half.add(pair)
