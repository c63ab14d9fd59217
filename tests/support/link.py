"""A TCP connection that a test can cut: it stands between a client and a server on loopback."""

import selectors
import socket
import struct
import threading
from types import TracebackType
from typing import Self


class Link:
    """Forwards bytes from `port` to a server; `cut` resets what is open, `block` refuses what is new."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._blocked = False
        self._held = False
        self._ended = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def block(self) -> None:
        """Cut, and let nobody through until `unblock`."""
        with self._lock:
            self._blocked = True
        self.cut()

    def unblock(self) -> None:
        """Let new connections through again."""
        with self._lock:
            self._blocked = False

    def hold(self) -> None:
        """Let nothing more through on what is open, as a dead radio link does; `cut` ends that."""
        with self._lock:
            for end in self._peers:
                self._selector.unregister(end)
            self._held = True

    def cut(self) -> None:
        """Reset every open connection, at both ends."""
        with self._lock:
            for end in list(self._peers):
                self._drop(end)
            self._held = False

    def close(self) -> None:
        """Cut, and stop listening."""
        self._ended = True
        self._wake_out.send(b"x")
        self._thread.join(10)
        self.cut()
        self._selector.close()
        for end in (self._listener, self._wake_in, self._wake_out):
            end.close()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select():
                with self._lock:
                    self._handle(key.fileobj)

    def _handle(self, ready: object) -> None:
        if ready is self._listener:
            self._accept()
        elif isinstance(ready, socket.socket) and ready in self._peers:
            self._forward(ready)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = None if self._blocked else socket.create_connection(self._target, timeout=5)
        except OSError:
            far = None
        if far is None:
            _reset(near)
            return
        for end, other in ((near, far), (far, near)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[end] = other
            self._selector.register(end, selectors.EVENT_READ)

    def _forward(self, end: socket.socket) -> None:
        try:
            data = end.recv(65536)
            if data:
                self._peers[end].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(end, gently=True)

    def _drop(self, end: socket.socket, *, gently: bool = False) -> None:
        other = self._peers.pop(end, None)
        if other is None:
            return
        self._peers.pop(other, None)
        for gone in (end, other):
            if not self._held:
                self._selector.unregister(gone)
            if gently:
                gone.close()
            else:
                _reset(gone)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
