"""The socket to the broker, as the MQTT library sees it.

paho reads byte by byte, never sets TCP_NODELAY, and would take a packet of 256 MiB from a broker gone mad. Between
it and the socket stands this: reads are buffered, acknowledgements are not delayed, and what is larger than we
announced ends the connection before a byte of it is kept.
"""

import errno
import select
import socket
import ssl
import time
from typing import Final

_CHUNK: Final = 16 * 1024
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


def tune(sock: socket.socket) -> None:
    """Send small packets at once.

    Nagle's algorithm at one end and delayed acknowledgements at the other cost 40 ms in each QoS 1 exchange.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    acknowledge_at_once(sock)


def acknowledge_at_once(sock: socket.socket) -> None:
    """Send the TCP acknowledgement of what was just read without delay."""
    # Linux forgets TCP_QUICKACK by itself, so it is set again after each read and write (see tcp(7)).
    if _QUICKACK is not None:
        sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


class Wire:
    """A connected, non-blocking socket with paho's `SocketLike` shape.

    Attributes:
        failure: Why it ended, for a person; empty while it lives.
        refused: It ended by a TLS alert of the broker: our certificate is not accepted.
        last_received, last_sent: Monotonic seconds.
    """

    def __init__(self, sock: socket.socket, limit: int) -> None:
        self._sock = sock
        self._limit = limit
        self._data = b""
        self._at = 0
        self._orderly = False
        self.failure = ""
        self.refused = False
        self.last_received = self.last_sent = time.monotonic()

    @property
    def buffered(self) -> bool:
        """There is more to read, though the kernel does not know of it."""
        if self._at < len(self._data):
            return True
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0 and self._sock.pending() > 0

    def recv(self, buffer_size: int) -> bytes:
        """Return at most `buffer_size` bytes; paho asks for the rest of a packet at once, which is its size."""
        if buffer_size > self._limit:
            self.failure = f"the broker sent a packet of {buffer_size} bytes, the limit announced is {self._limit}"
            raise OSError(errno.EMSGSIZE, self.failure)
        if self._at == len(self._data):
            self._data, self._at = self._fill(), 0
        piece = self._data[self._at : self._at + buffer_size]
        self._at += len(piece)
        return piece

    def _fill(self) -> bytes:
        try:
            data = self._sock.recv(_CHUNK)
            acknowledge_at_once(self._sock)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError) as error:
            raise BlockingIOError from error
        except OSError as error:
            self._fail(error)
            raise
        if not data:
            self.failure = self.failure or "the broker closed the connection"
        self.last_received = time.monotonic()
        return data

    def send(self, buffer: bytes | bytearray) -> int:
        """Send what the kernel takes now and return how much it was."""
        try:
            sent = self._sock.send(buffer)
            acknowledge_at_once(self._sock)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError) as error:
            raise BlockingIOError from error
        except OSError as error:
            self._fail(self._last_words() or error)
            raise
        self.last_sent = time.monotonic()
        return sent

    def _last_words(self) -> OSError | None:
        # The peer may have said why it hung up; that is worth more than that writing failed.
        try:
            self._sock.recv(_CHUNK)
        except (ssl.SSLEOFError, ConnectionError, BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError as error:
            return error
        return None

    def _fail(self, error: OSError) -> None:
        # With TLS 1.3 a refused client certificate is told after the handshake, in place of the first data.
        self.refused = isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "").upper()
        self.failure = self.failure or (
            f"TLS: {error.reason or error}" if isinstance(error, ssl.SSLError) else str(error)
        )

    def fileno(self) -> int:
        """Return the file descriptor, -1 when closed."""
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:  # noqa: FBT001 -- the shape paho asks for
        """Do nothing: it is non-blocking and stays so."""

    def farewell(self) -> None:
        """From here on, closing waits until the broker has read what was sent."""
        self._orderly = True

    def close(self) -> None:
        """Close; after `farewell` without a reset.

        A socket closed with unread bytes (a TLS session ticket is enough) is reset, and the reset can overtake our
        DISCONNECT at the broker, which would then publish the will of a client that said good-bye.
        """
        if self._orderly and self._sock.fileno() >= 0:
            self._drain()
        self._sock.close()

    def _drain(self, patience: float = 0.5) -> None:
        end = time.monotonic() + patience
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0 and poll.poll(left * 1000):
                if not self._sock.recv(_CHUNK):
                    return
        except OSError:
            return
