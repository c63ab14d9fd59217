"""A broker without any manners: it greets whoever comes as MQTT 5 has it, and then sends what a test wants.

No real broker would pass on what is sent here: they keep to the Maximum Packet Size.
"""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, PINGREQ = 1, 3, 4, 8, 12
LARGEST: Final = 268_435_455
"""The largest remaining length that MQTT can write down."""
_CONNACK: Final = b"\x20\x03\x00\x00\x00"
_PINGRESP: Final = b"\xd0\x00"


class HostileBroker:
    """`with HostileBroker() as broker:` listens on `broker.port`.

    Attributes:
        connections: How many were greeted.
        published: Topic and payload of what clients published.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.published: list[tuple[str, bytes]] = []
        self._client: socket.socket | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._client is not None:
            with suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def wait_subscribed(self, connections: int = 1, seconds: float = 30.0) -> None:
        """Until somebody is connected, for the so-many-th time, and has subscribed."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._client is None or self.connections < connections:
                left = end - time.monotonic()
                assert left > 0, "nobody came"
                self._changed.wait(left)

    def publish(self, topic: str, payload: bytes, packet_id: int = 1) -> None:
        """Send a message at QoS 1, retained."""
        body = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!HB", packet_id, 0) + payload
        assert self._client is not None
        self._client.sendall(b"\x33" + _length(len(body)) + body)

    def announce(self, topic: str, length: int) -> int:
        """Begin a message of so many bytes and send them, until nobody takes them; returns how many were taken."""
        client = self._client
        assert client is not None
        head = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!HB", 1, 0)
        sent, chunk = 0, b"[" * 65536
        with suppress(OSError):
            client.sendall(b"\x33" + _length(length) + head)
            while sent < length:
                sent += client.send(chunk)
        return sent

    def wait_published(self, topic: str, already: int, seconds: float = 20.0) -> bytes:
        """The first message on this topic after so many."""
        end = time.monotonic() + seconds
        with self._changed:
            while len(found := [payload for name, payload in self.published if name == topic]) <= already:
                left = end - time.monotonic()
                assert left > 0, f"nothing on {topic}"
                self._changed.wait(left)
        return found[already]

    def count(self, topic: str) -> int:
        """How many were published there."""
        with self._changed:
            return sum(name == topic for name, _ in self.published)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, suppress(OSError):
                    self._serve(client)
                with self._changed:
                    self._client = None

    def _serve(self, client: socket.socket) -> None:
        for kind, flags, body in _packets(client):
            match kind:
                case 1:
                    client.sendall(_CONNACK)
                case 3:
                    size = struct.unpack_from("!H", body)[0]
                    topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
                    if flags & 6:
                        client.sendall(b"\x40\x02" + rest[:2])
                        rest = rest[2:]
                    # One byte of property length: ours are short.
                    with self._changed:
                        self.published.append((topic, rest[1 + rest[0] :]))
                        self._changed.notify_all()
                case 8:
                    answer = body[:2] + b"\x00" + b"\x01" * _filters(body[3 + body[2] :])
                    client.sendall(b"\x90" + _length(len(answer)) + answer)
                    with self._changed:
                        if self._client is not client:
                            self._client, self.connections = client, self.connections + 1
                        self._changed.notify_all()
                case 12:
                    client.sendall(_PINGRESP)
                case _:
                    pass


def _packets(client: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    with client.makefile("rb") as stream:
        while head := stream.read(1):
            length = shift = 0
            while True:
                byte = stream.read(1)[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
            yield head[0] >> 4, head[0] & 0x0F, stream.read(length)


def _filters(data: bytes) -> int:
    count, at = 0, 0
    while at < len(data):
        at += 2 + struct.unpack_from("!H", data, at)[0] + 1
        count += 1
    return count


def _length(value: int) -> bytes:
    written = bytearray()
    while True:
        value, byte = divmod(value, 128)
        written.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(written)
