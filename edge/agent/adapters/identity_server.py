"""The endpoint where a task with a role asks who it is: one thread for all containers, a socket inside each.

Whose question it is is known by the socket it came through. The answers have the shape of ECS's: task metadata (v4) and
container credentials, whose `Token` is the task's own (`edge.model.task_identity`).
"""

import hmac
import json
import logging
import os
import queue
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from edge.agent.adapters.netns_listener import listen_inside
from edge.agent.engine.ports import FoundContainer
from edge.agent.telemetry.http_requests import RefusedRequest, Request, RequestReader, response
from edge.errors import EdgeError, StoreError
from edge.files import write_atomically
from edge.model.container_spec import LABEL_CONTAINER, LABEL_DEFINITION, LABEL_ROLE, LABEL_TASK_ID
from edge.model.identifiers import cluster_arn, container_arn, task_arn
from edge.model.task_identity import (
    CREDENTIALS_PATH,
    DEFAULT_AUDIENCE,
    LIFETIME_SECONDS,
    MAXIMUM_AUDIENCE,
    METADATA_PATH,
    TaskIdentity,
    environment,
    pass_for,
)

_log = logging.getLogger(__name__)
_KEY_BYTES: Final = 32
_REQUEST_SECONDS: Final = 5.0
_MOST_AUDIENCES: Final = 8
"""Of one container: each costs a signature."""
_SIGN_SECONDS: Final = 60.0
_END_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Served:
    """A container's socket, and what is answered there."""

    identity: TaskIdentity
    container: FoundContainer
    listener: socket.socket


class TaskIdentities:
    """Fulfils `Identities`.

    Args:
        key_file: Made where there is none; what containers show is made from it.
        identity: Returns the file with the device's certificate and its key, or None.
        now: RFC 3339, never before what is known to have passed.
    """

    def __init__(
        self, cluster: str, device: str, key_file: Path, identity: Callable[[], Path | None], now: Callable[[], str]
    ) -> None:
        self._cluster, self._device = cluster, device
        self._key_file = key_file
        self._identity = identity
        self._now = now
        self._news: queue.SimpleQueue[FoundContainer | str | None] = queue.SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._served: dict[str, _Served] = {}
        self._tokens: dict[tuple[str, str], tuple[str, int]] = {}
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def environment(self, task_id: str, container: str) -> Mapping[str, str]:
        """See `Identities`."""
        return environment(pass_for(self._key(), task_id, container))

    def runs(self, container: FoundContainer) -> None:
        """See `Identities`."""
        if container.labels.get(LABEL_ROLE):
            self._tell(container)

    def ended(self, runtime_id: str) -> None:
        """See `Identities`."""
        self._tell(runtime_id)

    def close(self) -> None:
        """End, without waiting long for a token that is being signed."""
        self._tell(None)
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._thread.join(_END_SECONDS)
        if self._thread is None or not self._thread.is_alive():
            os.close(self._wake)

    def _tell(self, news: FoundContainer | str | None) -> None:
        with self._lock:
            if self._closed or (self._thread is None and not isinstance(news, FoundContainer)):
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="identity", daemon=True)
                self._thread.start()
            self._news.put(news)
            os.eventfd_write(self._wake, 1)

    # --- the thread

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            goes_on = True
            while goes_on:
                for key, _ in selector.select():
                    if key.fileobj == self._wake:
                        goes_on = self._learn(selector)
                    elif isinstance(key.data, _Served) and key.data.container.runtime_id in self._served:
                        self._serve(key.data)
            for served in self._served.values():
                served.listener.close()

    def _learn(self, selector: selectors.BaseSelector) -> bool:
        os.eventfd_read(self._wake)
        while not self._news.empty():
            news = self._news.get()
            if news is None:
                return False
            runtime_id = news if isinstance(news, str) else news.runtime_id
            known = self._served.get(runtime_id)
            if known is not None and isinstance(news, FoundContainer) and known.container.pid == news.pid:
                continue  # told twice
            former = self._served.pop(runtime_id, None)
            if former is not None:
                selector.unregister(former.listener)
                former.listener.close()
                self._tokens = {key: token for key, token in self._tokens.items() if key[0] != runtime_id}
            if isinstance(news, FoundContainer):
                self._open(selector, news)
        return True

    def _open(self, selector: selectors.BaseSelector, container: FoundContainer) -> None:
        labels = container.labels
        identity = TaskIdentity(
            self._cluster, self._device, labels.get(LABEL_TASK_ID, ""), labels.get(LABEL_CONTAINER, ""),
            labels.get(LABEL_DEFINITION, ":0"), labels[LABEL_ROLE],
        )  # fmt: skip
        try:
            listener = listen_inside(container.runtime_id, container.pid)
        except EdgeError as error:
            _log.warning(
                "container %s of task %s cannot ask who it is: %s", identity.container, identity.task_id, error
            )
            return
        served = _Served(identity, container, listener)
        self._served[container.runtime_id] = served
        selector.register(listener, selectors.EVENT_READ, served)

    def _serve(self, served: _Served) -> None:
        """One short request at a time: who is slow makes only others of this endpoint wait, and not for long."""
        try:
            connected, _ = served.listener.accept()
        except OSError:
            return
        with connected:
            connected.settimeout(_REQUEST_SECONDS)
            try:
                connected.sendall(self._answer(served, connected))
            except OSError as error:
                _log.debug("a question who a task is was broken off: %s", error)

    def _answer(self, served: _Served, connected: socket.socket) -> bytes:
        try:
            return _json(self._document(served, _question(connected)))
        except RefusedRequest as refusal:
            return response(refusal.status, str(refusal), keep_alive=False)
        except EdgeError as error:
            _log.warning("task %s cannot be told who it is: %s", served.identity.task_id, error)
            return response(HTTPStatus.SERVICE_UNAVAILABLE, str(error), keep_alive=False)

    def _document(self, served: _Served, request: Request) -> dict[str, Any]:
        if request.method != "GET":
            raise RefusedRequest(HTTPStatus.METHOD_NOT_ALLOWED, "ask with GET")
        shown = pass_for(self._key(), served.identity.task_id, served.identity.container)
        if request.path == CREDENTIALS_PATH:
            if not hmac.compare_digest(request.authorization.encode(), shown.encode()):
                raise RefusedRequest(HTTPStatus.UNAUTHORIZED, "show AWS_CONTAINER_AUTHORIZATION_TOKEN in Authorization")
            return self._credentials(served, request.query.get("audience", DEFAULT_AUDIENCE))
        token, _, rest = request.path.removeprefix(METADATA_PATH).partition("/")
        if request.path.startswith(METADATA_PATH) and hmac.compare_digest(token.encode(), shown.encode()):
            if rest == "":
                return _container(served)
            if rest == "task":
                return _task(served)
        raise RefusedRequest(HTTPStatus.NOT_FOUND, "there is nothing here; see docs/task-identity.md")

    def _credentials(self, served: _Served, audience: str) -> dict[str, Any]:
        if not 0 < len(audience) <= MAXIMUM_AUDIENCE or not audience.isprintable():
            raise RefusedRequest(
                HTTPStatus.BAD_REQUEST, f"an audience is a text of up to {MAXIMUM_AUDIENCE} characters"
            )
        token, expires = self._token(served, audience)
        return {
            "RoleArn": served.identity.role_arn,
            # AWS's SDKs want both. They open nothing: the token is what counts, and AWS does not know it.
            "AccessKeyId": f"EDGE{served.identity.task_id[:16].upper()}",
            "SecretAccessKey": "none",
            "Token": token,
            "Expiration": datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z"),
        }

    def _token(self, served: _Served, audience: str) -> tuple[str, int]:
        key = (served.container.runtime_id, audience)
        now = int(datetime.fromisoformat(self._now()).timestamp())
        known = self._tokens.get(key)
        if known is not None and 0 < known[1] - now - LIFETIME_SECONDS // 2 <= LIFETIME_SECONDS:
            return known
        if known is None and sum(one == key[0] for one, _ in self._tokens) >= _MOST_AUDIENCES:
            raise RefusedRequest(HTTPStatus.TOO_MANY_REQUESTS, f"at most {_MOST_AUDIENCES} audiences for a container")
        claims = served.identity.claims(audience, now)
        self._tokens[key] = (self._signed(claims), claims["exp"])
        return self._tokens[key]

    def _signed(self, claims: Mapping[str, Any]) -> str:
        identity = self._identity()
        if identity is None:
            raise StoreError("this device has no certificate to sign with")
        command = (sys.executable, "-m", "edge.agent.task_token", str(identity))
        try:
            done = subprocess.run(  # noqa: S603 - our own
                command, input=json.dumps(claims).encode(), capture_output=True, timeout=_SIGN_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StoreError(f"cannot sign a task's token: {error}") from error
        return done.stdout.decode()

    def _key(self) -> bytes:
        try:
            key = self._key_file.read_bytes()
        except OSError:
            key = b""
        if len(key) != _KEY_BYTES:
            key = os.urandom(_KEY_BYTES)
            write_atomically(self._key_file, key)
        return key


def _question(connected: socket.socket) -> Request:
    reader = RequestReader()
    while (request := reader.next()) is None:
        data = b"" if reader.expected else connected.recv(8192)
        if not data:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, "a question has no body, and an end")
        reader.feed(data)
    return request


def _json(document: Mapping[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _container(served: _Served) -> dict[str, Any]:
    """The container as ECS's metadata (v4) has it, as far as it is known here."""
    identity, found = served.identity, served.container
    return {
        "DockerId": found.runtime_id,
        "Name": identity.container,
        "DockerName": found.name,
        "ImageID": f"sha256:{found.image_id}",
        "Labels": found.labels,
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "StartedAt": found.started_at,
        "Type": "NORMAL",
        "ContainerARN": container_arn(identity.cluster, identity.task_id, identity.container),
    }


def _task(served: _Served) -> dict[str, Any]:
    identity = served.identity
    family, _, revision = identity.definition.rpartition(":")
    return {
        "Cluster": cluster_arn(identity.cluster),
        "TaskARN": task_arn(identity.cluster, identity.task_id),
        "Family": family,
        "Revision": revision,
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "LaunchType": "EXTERNAL",
        "Containers": [_container(served)],
    }
