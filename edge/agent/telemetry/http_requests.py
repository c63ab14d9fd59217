"""HTTP/1.1 as far as a small local service needs it (RFC 9112): bytes in, bounded requests out. No I/O.

`http.server` reads with blocking calls, a thread for each connection, and no bound on a request's size.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

MAXIMUM_HEAD: Final = 8 * 1024
MAXIMUM_BODY: Final = 1024 * 1024
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_END_OF_HEAD: Final = b"\r\n\r\n"


class RefusedRequest(Exception):  # noqa: N818 - it is an answer, and stays inside the service
    """A request that is answered with an error; nothing after it on the connection can be understood."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request.

    Attributes:
        path: Without the query, as it was sent.
        query: The last value of each parameter.
        keep_alive: The connection may carry another request.
        authorization: The header of that name; empty when there is none.
    """

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    keep_alive: bool
    authorization: str = ""


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    length: int
    keep_alive: bool
    expects_continue: bool
    authorization: str


class RequestReader:
    """Puts the requests of one connection together."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._continued = False

    @property
    def idle(self) -> bool:
        """Nothing of a request is here."""
        return self._head is None and not self._buffer

    @property
    def expected(self) -> int:
        """Bytes of memory the request that is being read will take; 0 before its head is there."""
        return self._head.length if self._head else 0

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next whole request, or None while it is not there.

        Raises:
            RefusedRequest: It is not HTTP/1.x, too large, or without a length.
        """
        if self._head is None and not self._read_head():
            return None
        head = self._head
        if head is None or len(self._buffer) < head.length:
            return None
        body = bytes(self._buffer[: head.length])
        del self._buffer[: head.length]
        self._head, self._continued = None, False
        path, _, query = head.target.partition("?")
        return Request(head.method, path, dict(parse_qsl(query)), body, head.keep_alive, head.authorization)

    def wants_continue(self) -> bool:
        """Say, once for a request, whether the sender waits for `100 Continue` before it sends the body."""
        waits = self._head is not None and self._head.expects_continue and not self._continued and not self._buffer
        self._continued = self._continued or waits
        return waits

    def _read_head(self) -> bool:
        # A client may send an empty line in front of a request (RFC 9112 section 2.2).
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(_END_OF_HEAD, 0, MAXIMUM_HEAD)
        if end < 0:
            if len(self._buffer) >= MAXIMUM_HEAD:
                text = f"the head of a request is at most {MAXIMUM_HEAD} bytes"
                raise RefusedRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
            return False
        head = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + len(_END_OF_HEAD)]
        self._head = _parse_head(head)
        return True


def response(status: HTTPStatus, message: str = "", *, keep_alive: bool, headers: tuple[str, ...] = ()) -> bytes:
    """Return a whole answer; a message becomes `{"error": …}`."""
    body = json.dumps({"error": message}).encode() + b"\n" if message else b""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *headers]
    if body:
        lines.append("Content-Type: application/json")
    if status is not HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(body)}")
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + _END_OF_HEAD + body


def _parse_head(text: str) -> _Head:
    first, *lines = text.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):  # noqa: PLR2004 - method, target, version
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"{line[:64]!r} is no header")
        if name.lower() == "content-length" and name.lower() in headers:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, "Content-Length is there twice")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise RefusedRequest(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length; chunks are not read here")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    if len(length) > len(str(MAXIMUM_BODY)) or int(length) > MAXIMUM_BODY:
        raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {MAXIMUM_BODY} bytes")
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (words[2] == "HTTP/1.1" or "keep-alive" in connection)
    expects = headers.get("expect", "").lower() == "100-continue"
    target = words[1]
    if target.startswith("http://"):
        # The absolute form, which every server has to take (RFC 9112 section 3.2.2).
        target = "/" + target.removeprefix("http://").partition("/")[2]
    return _Head(words[0], target, int(length), keep_alive, expects, headers.get("authorization", ""))
