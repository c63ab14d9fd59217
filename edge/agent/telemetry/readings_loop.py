"""Who is heard on the containers' sockets, and for how long: one thread for all of them."""

import errno
import os
import queue
import selectors
import socket
import time
from dataclasses import dataclass
from typing import Final

from edge.agent.telemetry.readings import Origin
from edge.agent.telemetry.readings_connection import Admission, Connection

_MOST_CONNECTIONS: Final = 64
"""Of all containers; the one that was quiet for longest makes room."""
_MOST_OF_ONE: Final = 16
"""Connections of one container: it cannot take those of the others."""
_NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE})
_NO_DESCRIPTOR_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A container's socket, to be listened on."""

    origin: Origin
    listener: socket.socket


News = Opened | Origin | None
"""A socket to listen on; a container whose socket is to be closed; the end."""


class ReadingsLoop:
    """What the thread holds; nobody else touches it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        wake: int,
        news: queue.SimpleQueue[News],
        admission: Admission,
    ) -> None:
        self._selector = selector
        self._wake = wake
        self._news = news
        self._admission = admission
        self._connections: dict[socket.socket, Connection] = {}
        self._listeners: dict[Origin, socket.socket] = {}
        self._held: dict[Origin, float] = {}
        self._ended = False
        selector.register(wake, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the news is None."""
        while not self._ended:
            now = self._admission.monotonic()
            due = [c.deadline for c in self._connections.values() if c.deadline is not None]
            due += self._held.values()
            ready = self._selector.select(max(0.0, min(due) - now) if due else None)
            for key, _ in ready:
                if key.fileobj == self._wake:
                    self._learn()
                elif isinstance(key.data, Origin):
                    self._accept(key.fileobj, key.data)
                else:
                    self._serve(key.fileobj)
            self._drop_late()
            self._hear_again()
        for each in (*self._listeners.values(), *self._connections):
            each.close()

    def _learn(self) -> None:
        os.eventfd_read(self._wake)
        while not self._news.empty():
            match self._news.get():
                case None:
                    self._ended = True
                case Opened(origin, listener):
                    self._listeners[origin] = listener
                    self._hear(listener, origin)
                case Origin() as origin:
                    listener = self._listeners.pop(origin)
                    self._ignore(listener)
                    listener.close()

    def _accept(self, listener: object, origin: Origin) -> None:
        assert isinstance(listener, socket.socket)  # noqa: S101 - what was registered
        try:
            connected, _ = listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                self._make_room()
            # Otherwise it hung up before it was taken.
            return
        connected.settimeout(0)
        # Dictionaries keep their order, and whoever is heard goes to its end.
        own = self._of(origin)
        if len(own) >= _MOST_OF_ONE:
            self._close(own[0])
        elif len(self._connections) >= _MOST_CONNECTIONS:
            self._close(next(iter(self._connections)))
        self._connections[connected] = Connection(connected, origin, self._admission)
        self._hear(connected, None)

    def _make_room(self) -> None:
        """Whoever waits to be taken is still there at the next look, which comes at once."""
        if self._connections:
            self._close(next(iter(self._connections)))
        else:
            time.sleep(_NO_DESCRIPTOR_SECONDS)

    def _serve(self, connected: object) -> None:
        assert isinstance(connected, socket.socket)  # noqa: S101 - what was registered
        connection = self._connections.pop(connected, None)
        if connection is None:
            return
        self._connections[connected] = connection
        goes_on = connection.readable()
        if connection.hold_until is not None:
            self._hold(connection.origin, connection.hold_until)
            connection.hold_until = None
        if not goes_on:
            self._close(connected)

    # --- who is heard

    def _hold(self, origin: Origin, until: float) -> None:
        """Hear nothing of a container for a while: to answer it would cost as much as what it sends."""
        self._held[origin] = until
        for each in (self._listeners.get(origin), *self._of(origin)):
            self._ignore(each)

    def _hear_again(self) -> None:
        now = self._admission.monotonic()
        for origin in [origin for origin, until in self._held.items() if until <= now]:
            del self._held[origin]
            if origin in self._listeners:
                self._hear(self._listeners[origin], origin)
            for connected in self._of(origin):
                self._hear(connected, None)

    def _of(self, origin: Origin) -> list[socket.socket]:
        return [connected for connected, connection in self._connections.items() if connection.origin == origin]

    def _hear(self, each: socket.socket, origin: Origin | None) -> None:
        if each not in self._selector.get_map():
            self._selector.register(each, selectors.EVENT_READ, origin)

    def _ignore(self, each: socket.socket | None) -> None:
        if each is not None and each in self._selector.get_map():
            self._selector.unregister(each)

    def _drop_late(self) -> None:
        now = self._admission.monotonic()
        for connected, connection in list(self._connections.items()):
            if connection.deadline is not None and connection.deadline <= now:
                self._close(connected)

    def _close(self, connected: socket.socket) -> None:
        self._connections.pop(connected).forget()
        self._ignore(connected)
        connected.close()
