"""Between a client and a real broker: passes packets on, and does to them what networks and bad brokers do.

Packets of the broker are taken apart (MQTT 5.0, §2.1: type, remaining length, rest), so that an acknowledgement can be
held back or changed while everything else is the real broker's.
"""

import socket
import threading
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Self

_PUBACK = 4
_READ = 65536


class Mischief(Enum):
    """What the proxy does."""

    NONE = auto()
    NO_ACKNOWLEDGEMENT = auto()
    """PUBACKs do not arrive; the broker has the messages."""
    WRONG_IDS = auto()
    """PUBACKs name packets that were never sent."""
    SWALLOW = auto()
    """Nothing arrives on either side, and nobody is told: the peer's power was cut, or a NAT forgot."""


class MqttProxy:
    """`with MqttProxy(port) as proxy:` listens on `proxy.port`.

    Attributes:
        mischief: In force for the packets that come from now on.
        held_back: How many acknowledgements were not passed on as they were.
        connections: How many were made so far.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.mischief = Mischief.NONE
        self.held_back = 0
        self.connections = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def cut(self) -> None:
        """Reset every connection."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        """End."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                try:
                    broker = socket.create_connection(("127.0.0.1", self._target), 5)
                except OSError:
                    client.close()
                    continue
                broker.settimeout(None)
                self._open += [client, broker]
                self._begin(self._to_broker, client, broker)
                self._begin(self._to_client, broker, client)

    def _to_broker(self, client: socket.socket, broker: socket.socket) -> None:
        with client, broker, suppress(OSError):
            while data := client.recv(_READ):
                if self.mischief is not Mischief.SWALLOW:
                    broker.sendall(data)
            broker.shutdown(socket.SHUT_RDWR)

    def _to_client(self, broker: socket.socket, client: socket.socket) -> None:
        waiting = b""
        with suppress(OSError):
            while data := broker.recv(_READ):
                waiting += data
                while (packet := _first_packet(waiting)) is not None:
                    waiting = waiting[len(packet) :]
                    self._pass_on(packet, client)
            client.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, packet: bytes, client: socket.socket) -> None:
        if self.mischief is Mischief.SWALLOW:
            return
        if packet[0] >> 4 == _PUBACK and self.mischief is not Mischief.NONE:
            self.held_back += 1
            if self.mischief is Mischief.NO_ACKNOWLEDGEMENT:
                return
            packet = packet[:2] + bytes((packet[2] ^ 0x55, packet[3] ^ 0x55)) + packet[4:]
        client.sendall(packet)


def _first_packet(data: bytes) -> bytes | None:
    """The whole packet that `data` begins with, if it is there."""
    length, shift = 0, 0
    for at, byte in enumerate(data[1:5], 1):
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            end = at + 1 + length
            return data[:end] if len(data) >= end else None
    return None
