"""A registry that does what a test tells it: every way in which a registry fails, switched on and off while it runs.

It speaks enough of the OCI distribution specification 1.1 to be pulled from and pushed to. `docker-registry`
(`tests/support/registry.py`) is the one to hold a client to; this one is for what that one never does.

    with FaultRegistry() as registry:
        blob = registry.add(b"a layer")
        registry.fault(Fault.TRUNCATED, on="/blobs/", times=2)
        ...
        assert registry.count("/blobs/") == 3
"""

import base64
import contextlib
import enum
import hashlib
import json
import re
import secrets
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.certificates import Identity

INDEX: Final = "application/vnd.oci.image.index.v1+json"
MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_PATIENCE_SECONDS: Final = 10.0
_ROUTE: Final = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>manifests|blobs/uploads|blobs|referrers)/(?P<rest>[^/]*)")


class Fault(enum.Enum):
    """What goes wrong with a request."""

    UNAUTHORIZED = "401, whatever was sent along"
    FORBIDDEN = "403"
    BUSY = "429, to be asked again after `retry_after` seconds"
    BROKEN = "503"
    RESET = "the connection is reset instead of an answer"
    NO_RANGE = "200 and the whole blob"
    OTHER_RANGE = "206 and another part than was asked for, honestly told"
    WRONG_BYTES = "the right length, every byte another"
    TOO_SHORT = "a complete answer of half the bytes; a part is told as what was asked for"
    TRUNCATED = "the connection ends after half of the bytes"
    STALLED = "half of the bytes, and then nothing until `heal`"
    EXPIRED_LINK = "a redirect to a signed link that is too old"


@dataclass(frozen=True, slots=True)
class Request:
    """One request that came.

    Attributes:
        headers: Names in lower case.
        peer: The port at the client's end of its connection.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    peer: int


@dataclass(slots=True)
class _Switched:
    fault: Fault
    on: str
    left: int


@dataclass(slots=True)
class FaultRegistry:
    """`with FaultRegistry() as registry:`; on loopback, with everything in memory, usable from any thread.

    Attributes:
        identity: Speaks TLS with this certificate.
        client_ca: Takes only clients with a certificate of this authority.
        auth: `basic` or `bearer`; empty for none. Bearer tokens come from `/token` of this registry.
        users: Names and passwords; `bearer` gives tokens to the unknown too where this is empty.
        identity_token: What `bearer` takes as a refresh token.
        realm: Where tokens are said to be, if elsewhere.
        token_seconds: How long a token is said to be good (`expires_in`); it is good until `revoke_tokens`.
        storage: Blobs are served by this one, behind signed links.
        moved: Says where manifests have moved to.
        uploads_to: Where uploads are said to go, if elsewhere.
        referrers_api: Whether there is one.
        refusal: The body of every refusal, if it is to be another.
        token_document: What `/token` gives, if it is to be another.
        blob_headers: Sent with blobs.
        retry_after: Seconds that go with `Fault.BUSY`.
        port: 0 for a free one; the same again after `stop` and `start`.
        blobs: By digest.
        manifests: Type and bytes by `name/tag` or `name/digest`.
        requests: All that came, in order.
        sent: Bytes of bodies sent.
    """

    identity: Identity | None = None
    client_ca: Path | None = None
    auth: str = ""
    users: Mapping[str, str] = field(default_factory=dict)
    identity_token: str = ""
    realm: str = ""
    token_seconds: object = 300
    storage: "FaultRegistry | None" = None
    moved: Callable[[str], str] | None = None
    uploads_to: str = ""
    referrers_api: bool = True
    refusal: bytes | None = None
    token_document: bytes | None = None
    blob_headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: int = 7
    port: int = 0
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    tokens: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    connections: set[socket.socket] = field(default_factory=set)
    _switched: list[_Switched] = field(default_factory=list)
    _stalled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _healed: threading.Event = field(default_factory=threading.Event)
    _server: "_Server | None" = None

    # --- what it has

    def add(self, data: bytes) -> str:
        """Add a blob; return its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def put(self, place: str, document: object, media_type: str = MANIFEST) -> str:
        """Add a manifest or an index as `name:tag` (or `name` for its digest alone); return its digest."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        name, _, tag = place.partition(":")
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        for wanted in (digest, tag or digest):
            self.manifests[f"{name}/{wanted}"] = (media_type, data)
        return digest

    def image(self, place: str, *layers: bytes, architecture: str = "amd64") -> str:
        """Add an image of these layers, uncompressed tars, as `name:tag`; return its digest."""
        digests = [self.add(one) for one in layers]
        rootfs = {"type": "layers", "diff_ids": digests}
        config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()
        described = [{"mediaType": f"{MANIFEST[:-17]}layer.v1.tar", "digest": one} for one in digests]
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": f"{MANIFEST[:-17]}config.v1+json", "digest": self.add(config), "size": len(config)},
            "layers": [one | {"size": len(layer)} for one, layer in zip(described, layers, strict=True)],
        }
        return self.put(place, document)

    def add_layout(self, folder: Path, name: str) -> None:
        """Add all of an OCI layout: its blobs, and its entry points under their tags."""
        for path in (folder / "blobs/sha256").iterdir():
            data = path.read_bytes()
            self.blobs[f"sha256:{path.name}"] = data
            kind = _type_of(data)
            if kind:
                self.manifests[f"{name}/sha256:{path.name}"] = (kind, data)
        for entry in json.loads((folder / "index.json").read_bytes())["manifests"]:
            tag = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "latest")
            self.manifests[f"{name}/{tag}"] = self.manifests[f"{name}/{entry['digest']}"]

    # --- what goes wrong

    def fault(self, fault: Fault, on: str = "", times: int = 1 << 30) -> None:
        """Let the next `times` requests fail whose path has `on` in it; faults switched on earlier come first."""
        with self.lock:
            self._healed.clear()
            self._switched.append(_Switched(fault, on, times))

    def heal(self) -> None:
        """Switch all faults off; what stalls goes on."""
        with self.lock:
            self._switched.clear()
            self._healed.set()

    def wait_for_stall(self) -> None:
        """Return when one more request stalls."""
        assert self._stalled.acquire(timeout=_PATIENCE_SECONDS), "nothing stalls"

    def revoke_tokens(self) -> None:
        """No token given so far is good any more."""
        with self.lock:
            self.tokens.clear()

    def expire_links(self) -> None:
        """No signed link given so far is good any more."""
        with self.lock:
            self.links.clear()

    # --- what came

    def count(self, on: str = "") -> int:
        """How many requests came whose path has `on` in it."""
        return len(self.asked(on))

    def asked(self, on: str = "") -> list[Request]:
        """The requests that came whose path has `on` in it."""
        with self.lock:
            return [one for one in self.requests if on in one.path]

    # --- its life

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """With its scheme."""
        return f"{'https' if self.identity is not None else 'http'}://{self.address}"

    def start(self) -> None:
        """Listen; ready on return."""
        assert self._server is None
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fault registry", daemon=True).start()

    def stop(self) -> None:
        """Reset every connection and listen no more; what was added stays."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        self._healed.set()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- for its own connections

    def next_fault(self, path: str) -> Fault | None:
        """Take what is to go wrong with a request."""
        with self.lock:
            for one in self._switched:
                if one.on in path and one.left > 0:
                    one.left -= 1
                    return one.fault
        return None

    def stall(self) -> None:
        """Wait for `heal` or the end."""
        self._stalled.release()
        self._healed.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, registry: FaultRegistry) -> None:
        self.registry = registry
        self._tls: ssl.SSLContext | None = None
        if registry.identity is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(registry.identity.cert_file, registry.identity.key_file)
            if registry.client_ca is not None:
                self._tls.load_verify_locations(registry.client_ca)
                self._tls.verify_mode = ssl.CERT_REQUIRED
        super().__init__(("127.0.0.1", registry.port), _Connection)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        if self._tls is not None:
            # The handshake happens on the connection's own thread.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self.registry.lock:
            self.registry.connections.add(connection)
        return connection, peer

    def reset(self, connection: socket.socket) -> None:
        """Let it end with a reset: closed without a shutdown, and not lingering."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with self.registry.lock:
            self.registry.connections.discard(connection)

    def shutdown_request(self, request: Any) -> None:
        with self.registry.lock:
            known = request in self.registry.connections
            self.registry.connections.discard(request)
        (super().shutdown_request if known else self.close_request)(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are what tests are about."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name above
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    @property
    def registry(self) -> FaultRegistry:
        return self.server.registry

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        with self.registry.lock:
            self.registry.requests.append(Request(self.command, self.path, headers, self.client_address[1]))
        match self.registry.next_fault(self.path):
            case Fault.UNAUTHORIZED:
                self._challenge()
            case Fault.FORBIDDEN:
                self._refuse(403, "DENIED", "requested access to the resource is denied")
            case Fault.BUSY:
                self._refuse(
                    429, "TOOMANYREQUESTS", "too many requests", {"Retry-After": str(self.registry.retry_after)}
                )
            case Fault.BROKEN:
                self._refuse(503, "UNAVAILABLE", "service unavailable")
            case Fault.RESET:
                self.server.reset(self.connection)
                self.close_connection = True
            case fault:
                self._route(body, fault)

    def _route(self, body: bytes, fault: Fault | None) -> None:
        url = urlsplit(self.path)
        if url.path == "/token":
            self._give_token(parse_qs(url.query) | parse_qs(body.decode()))
        elif url.path.startswith("/signed/"):
            self._signed(url.path.removeprefix("/signed/"), url.query, fault)
        elif not self._authorized():
            self._challenge()
        elif found := _ROUTE.fullmatch(url.path):
            self._answer(found["name"], found["kind"], found["rest"], body, fault)
        else:
            self._refuse(404, "UNSUPPORTED", "no such page")

    def _answer(self, name: str, kind: str, rest: str, body: bytes, fault: Fault | None) -> None:
        match self.command, kind:
            case "PUT", "manifests":
                self._take_manifest(name, rest, body)
            case _, "manifests" if self.registry.moved is not None:
                self._send(307, b"", {"Location": self.registry.moved(self.path)})
            case _, "manifests":
                media_type, data = self.registry.manifests.get(f"{name}/{rest}", ("", b""))
                if not media_type:
                    self._refuse(404, "MANIFEST_UNKNOWN", "manifest unknown")
                else:
                    self._send(200, data, {"Content-Type": media_type}, fault)
            case "POST", "blobs/uploads":
                location = self.registry.uploads_to or f"/v2/{name}/blobs/uploads/{secrets.token_hex(8)}?state=open"
                self._send(202, b"", {"Location": location})
            case "PUT", "blobs/uploads":
                self.registry.add(body)
                self._send(201, b"")
            case _, "blobs":
                self._blob(rest, fault)
            case _, "referrers" if self.registry.referrers_api:
                self._referrers(name, rest)
            case _:
                self._refuse(404, "UNSUPPORTED", "no such page")

    # --- who asks

    def _authorized(self) -> bool:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        match self.registry.auth:
            case "basic":
                return kind == "Basic" and self._is_user(value)
            case "bearer":
                return kind == "Bearer" and value in self.registry.tokens
            case _:
                return True

    def _is_user(self, value: str) -> bool:
        user, _, secret = base64.b64decode(value).decode().partition(":")
        return self.registry.users.get(user) == secret

    def _challenge(self) -> None:
        found = _ROUTE.fullmatch(urlsplit(self.path).path)
        scope = f"repository:{found['name']}:pull" if found is not None else ""
        if self.registry.auth == "basic":
            challenge = 'Basic realm="registry"'
        else:
            realm = self.registry.realm or f"{self.registry.url}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="{scope}"'
        self._refuse(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})

    def _give_token(self, asked: Mapping[str, list[str]]) -> None:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        known = "refresh_token" in asked and asked["refresh_token"] == [self.registry.identity_token]
        if self.registry.users and not known and not (kind == "Basic" and self._is_user(value)):
            self._refuse(401, "UNAUTHORIZED", "incorrect username or password")
            return
        token = secrets.token_hex(8)
        with self.registry.lock:
            self.registry.tokens.add(token)
        document: dict[str, object] = {"token": token}
        if self.registry.token_seconds is not None:
            document["expires_in"] = self.registry.token_seconds
        data = self.registry.token_document
        self._send(200, json.dumps(document).encode() if data is None else data, {"Content-Type": "application/json"})

    # --- blobs

    def _blob(self, digest: str, fault: Fault | None) -> None:
        data = self.registry.blobs.get(digest)
        storage = self.registry.storage
        if data is None:
            self._refuse(404, "BLOB_UNKNOWN", "blob unknown to registry")
        elif storage is None or self.command == "HEAD":
            self._send_blob(data, fault)
        else:
            signature = secrets.token_hex(8)
            with storage.lock:
                storage.blobs[digest] = data
                if fault is not Fault.EXPIRED_LINK:
                    storage.links.add(signature)
            self._send(307, b"", {"Location": f"{storage.url}/signed/{digest}?signature={signature}"})

    def _signed(self, digest: str, query: str, fault: Fault | None) -> None:
        if query.removeprefix("signature=") not in self.registry.links:
            self._refuse(403, "AccessDenied", "Request has expired")
        else:
            self._send_blob(self.registry.blobs[digest], fault)

    def _send_blob(self, data: bytes, fault: Fault | None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or fault is Fault.NO_RANGE:
            self._send(200, data, self.registry.blob_headers, fault)
            return
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        if fault is Fault.OTHER_RANGE:
            first, last = (first - 1, last - 1) if first else (first + 1, last)
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}", **self.registry.blob_headers}
        self._send(206, data[first : last + 1], headers, fault)

    # --- manifests

    def _take_manifest(self, name: str, wanted: str, body: bytes) -> None:
        place = name if wanted.startswith("sha256:") else f"{name}:{wanted}"
        self.registry.put(place, body, self.headers.get("Content-Type", ""))
        subject = json.loads(body).get("subject")
        listed = {"OCI-Subject": subject["digest"]} if subject and self.registry.referrers_api else {}
        self._send(201, b"", listed)

    def _referrers(self, name: str, digest: str) -> None:
        listed = []
        for place, (media_type, data) in self.registry.manifests.items():
            document = json.loads(data)
            where, _, reference = place.rpartition("/")
            if where == name and (document.get("subject") or {}).get("digest") == digest and ":" in reference:
                kind = document.get("artifactType", "")
                entry = {"mediaType": media_type, "digest": reference, "size": len(data), "artifactType": kind}
                listed.append(entry)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        self._send(200, json.dumps(index).encode(), {"Content-Type": INDEX})

    # --- answers

    def _refuse(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        data = self.registry.refusal
        if data is None:
            data = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self._send(status, data, {"Content-Type": "application/json"} | dict(headers or {}))

    def _send(
        self, status: int, data: bytes, headers: Mapping[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        if fault is Fault.WRONG_BYTES:
            data = bytes(255 - byte for byte in data)
        if fault is Fault.TOO_SHORT:
            data = data[: len(data) // 2]
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in (Fault.TRUNCATED, Fault.STALLED):
            self._write(data[: len(data) // 2])
            data = data[len(data) // 2 :]
        if fault is Fault.TRUNCATED:
            self.close_connection = True
            return
        if fault is Fault.STALLED:
            self.registry.stall()
        self._write(data)

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        with self.registry.lock:
            self.registry.sent += len(data)


def _type_of(data: bytes) -> str:
    try:
        document = json.loads(data)
    except ValueError:
        return ""
    return str(document.get("mediaType", "")) if isinstance(document, dict) else ""
