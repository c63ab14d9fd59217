"""A registry that misbehaves on request: an HTTP proxy in front of a real one."""

import http.client
import secrets
import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress
from enum import StrEnum
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_PATIENCE_SECONDS = 60.0
_PIECE = 16 * 1024


class Fault(StrEnum):
    """What happens to requests for blobs."""

    NONE = "none"
    RESET = "the connection is reset"
    STALL = "nothing comes until the fault is over"
    BREAK_OFF = "half of the body comes, then the connection ends"
    FLIP = "one byte of the body is another one"
    WRONG_RANGE = "another part than was asked for, and said so"
    NO_RANGE = "the whole blob, whatever part was asked for"
    UNAVAILABLE = "status 503"
    GONE = "status 404"
    SLOW = "200 KB a second"
    EXPIRED_LINK = "a redirect to storage that says 403"


class FaultProxy:
    """`with FaultProxy(port) as proxy:`; `proxy.fault = Fault.…` takes effect at once, on open connections too.

    Attributes:
        fault: For blobs only; manifests always come.
        times: After so many faulty answers there is no fault any more; 0 for no limit.
        requests: Paths that were asked for, with their ranges.
        tokens: Bearer tokens are asked for; `revoke` ends those that were given.
        redirects: Blobs are redirected to another server.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.fault = Fault.NONE
        self.times = 0
        self.tokens = self.redirects = False
        self.requests: list[tuple[str, str]] = []
        self._valid: set[str] = set()
        self._changed = threading.Condition()
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    def break_with(self, fault: Fault, times: int = 0) -> None:
        """From now on."""
        with self._changed:
            self.fault, self.times = fault, times
            self._changed.notify_all()

    def heal(self) -> None:
        """No fault any more; what was stalled goes on."""
        self.break_with(Fault.NONE)

    def revoke(self) -> None:
        """No token that was given is good any more."""
        self._valid.clear()

    def take_fault(self) -> Fault:
        """Return the fault for one more answer."""
        with self._changed:
            found = self.fault
            if found is not Fault.NONE and self.times:
                self.times -= 1
                if not self.times:
                    self.fault = Fault.NONE
            return found

    def wait_until_healed(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.fault is not Fault.STALL, _PATIENCE_SECONDS)

    def new_token(self) -> str:
        token = secrets.token_hex(8)
        self._valid.add(token)
        return token

    def is_good(self, authorization: str) -> bool:
        return authorization.removeprefix("Bearer ") in self._valid

    def blob_requests(self) -> int:
        """How many requests for parts of blobs there were."""
        return sum("/blobs/" in path for path, _ in self.requests)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Quiet."""

    def do_GET(self) -> None:
        proxy = self.server.proxy
        path, wanted = self.path, self.headers.get("Range", "")
        if path.startswith("/token"):
            self._send(200, {"Content-Type": "application/json"}, f'{{"token": "{proxy.new_token()}"}}'.encode())
            return
        signed = path.startswith("/signed")
        if not signed:
            proxy.requests.append((path, wanted))
        if proxy.tokens and not signed and not proxy.is_good(self.headers.get("Authorization", "")):
            realm = f'Bearer realm="http://{proxy.address}/token",service="test"'
            self._send(401, {"WWW-Authenticate": realm}, b"{}")
            return
        blob = "/blobs/" in path
        if blob and not signed and (proxy.redirects or proxy.fault is Fault.EXPIRED_LINK):
            # "localhost" is another host than 127.0.0.1: credentials must not follow.
            good = "good" if proxy.take_fault() is Fault.NONE else "expired"
            self._send(307, {"Location": f"http://localhost:{proxy.port}/signed/{good}{path}"}, b"")
            return
        if signed:
            if self.headers.get("Authorization"):
                self._send(400, {}, b"credentials were sent to somebody else")
                return
            if path.startswith("/signed/expired"):
                self._send(403, {}, b"expired")
                return
            path = path.removeprefix("/signed/good")
        self._forward(path, wanted, proxy.take_fault() if blob else Fault.NONE)

    def _forward(self, path: str, wanted: str, fault: Fault) -> None:
        proxy = self.server.proxy
        if fault is Fault.STALL:
            proxy.wait_until_healed()
        if fault is Fault.RESET:
            self._reset()
            return
        if fault in (Fault.UNAVAILABLE, Fault.GONE):
            self._send(503 if fault is Fault.UNAVAILABLE else 404, {}, b"{}")
            return
        status, headers, body = self._ask(path, "" if fault is Fault.NO_RANGE else wanted)
        if fault is Fault.FLIP and body:
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 0x55]) + body[len(body) // 2 + 1 :]
        if fault is Fault.WRONG_RANGE and "Content-Range" in headers:
            headers["Content-Range"] = f"bytes 0-{len(body) - 1}/{len(body) * 2}"
        self._send(status, headers, body, fault)

    def _ask(self, path: str, wanted: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.proxy.target_port, timeout=_PATIENCE_SECONDS)
        try:
            headers = {"Range": wanted} if wanted else {}
            connection.request("GET", path, headers=headers | {"Accept": self.headers.get("Accept", "*/*")})
            answer = connection.getresponse()
            kept = {key: value for key, value in answer.getheaders() if key in ("Content-Type", "Content-Range")}
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: dict[str, str], body: bytes, fault: Fault = Fault.NONE) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            if fault is Fault.BREAK_OFF:
                self.wfile.write(body[: len(body) // 2])
                self._reset()
                return
            for at in range(0, len(body), _PIECE):
                self.wfile.write(body[at : at + _PIECE])
                if fault is Fault.SLOW:
                    time.sleep(_PIECE / 200_000)
                if self.server.proxy.fault is Fault.STALL and "/blobs/" in urlsplit(self.path).path:
                    self.server.proxy.wait_until_healed()

    def _reset(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RDWR)
