"""Requests to Podman's service, and what its answers mean.

Only podman-py's `APIClient` is used: the transport. Its resource classes send keys that Podman does not know, drop
others in silence and, after 5.8.0, pull by themselves (docs/adr/0004). Each request has its own connection,
closed after the answer: one kept alive holds an idle service up, and one to a service that died fails for nothing.
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import requests
from urllib3.exceptions import HTTPError

from edge.errors import (
    EngineError,
    EngineFullError,
    EngineUnavailableError,
    NameInUseError,
    NoSuchContainerError,
    NoSuchImageError,
    PortInUseError,
)
from edge.lean_imports import without

with without("rich.progress"):  # 2.8 MB for progress bars that podman-py draws when it finds them
    from podman.api.client import APIClient
    from podman.api.uds import UDSConnection, UDSConnectionPool, UDSSocket
    from podman.errors import APIError

API_VERSION: Final = "4.0.0"
"""The oldest libpod API asked for; Podman 4.3.1 to 5.x answer it."""
_NOT_FOUND: Final = 404
_REFUSED: Final = 400
_MAXIMUM_ANSWER: Final = 64 * 1024 * 1024
NO_SPACE: Final = ("no space left on device", "disk quota exceeded")


class Answer:
    """A finished answer: its status and its JSON."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    def json(self) -> Any:
        """Return the document; an unreadable one is the service's failure."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise EngineUnavailableError(f"Podman answered with something that is not JSON: {error}") from error


class PodmanApi:
    """Podman's service behind a Unix socket; usable from any thread."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._local = threading.local()

    def call(  # noqa: PLR0913 - the parts of an HTTP request
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        document: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
        reason: str = "CannotInspectContainerError",
        missing: type[EngineError] | None = None,
    ) -> Answer:
        """Send a request and read the whole answer.

        Args:
            method: Of HTTP.
            path: Below `/libpod`.
            parameters: The query.
            document: Sent as JSON.
            timeout: Seconds to wait for each part of the answer.
            reason: ECS's name for a failure of this call.
            missing: What 404 is raised as; None returns it as an answer.

        Raises:
            EngineUnavailableError: No answer, or half of one.
            EngineError: A refusal, of the class that its cause asks for.
        """
        with self.stream(method, path, parameters=parameters, document=document, timeout=timeout) as response:
            try:
                body = response.raw.read(_MAXIMUM_ANSWER, decode_content=True)
            except (HTTPError, OSError) as error:
                raise self._unavailable(error) from error
        answer = Answer(response.status_code, body)
        if answer.status == _NOT_FOUND and missing is None:
            return answer
        if answer.status >= _REFUSED:
            raise refusal(answer.status, body, reason, missing)
        return answer

    def stream(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        document: Mapping[str, Any] | None = None,
        timeout: float | None = 30.0,
    ) -> requests.Response:
        """Send a request and return the answer unread; whoever gets it closes it.

        Raises:
            EngineUnavailableError: No answer.
        """
        # A client, and its session, belongs to one thread; making one costs less than a millisecond.
        client = getattr(self._local, "client", None)
        if client is None:
            client = _client(self._socket)
            self._local.client = client
        send = {"GET": client.get, "POST": client.post, "DELETE": client.delete}[method]
        body = {"data": json.dumps(document)} if document is not None else {}
        headers = {"Content-Type": "application/json", "Connection": "close"}
        try:
            answer = send(path, params=dict(parameters or {}), headers=headers, timeout=timeout, stream=True, **body)
        except (requests.RequestException, APIError, HTTPError, OSError) as error:
            raise self._unavailable(error) from error
        response: requests.Response = getattr(answer, "_response", answer)
        return response

    def _unavailable(self, error: Exception) -> EngineUnavailableError:
        return EngineUnavailableError(
            f"Podman's service at {self._socket} does not answer: {_innermost(error)}",
            reason="DockerTimeoutError",
            hint="`edge up` starts it; under systemd it is podman.socket.",
        )


class _Connection(UDSConnection):  # type: ignore[misc] # podman-py has no types
    """Closes the socket of a connect that failed; podman-py leaves it to the garbage collector."""

    def connect(self) -> None:
        sock = UDSSocket(self.uds)
        try:
            sock.settimeout(self.timeout)
            sock.connect()
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _Pool(UDSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


def _client(socket: Path) -> APIClient:
    client = APIClient(base_url=f"unix://{socket}", version=API_VERSION)
    client.get_adapter("http://").poolmanager.pool_classes_by_scheme = {"http": _Pool}
    return client


def refusal(status: int, body: bytes, reason: str, missing: type[EngineError] | None = None) -> EngineError:
    """Return what a refusal means, by its cause: Podman 4.x says 500 where 5.x says 404 or 409."""
    try:
        document = json.loads(body)
        cause, message = str(document.get("cause", "")), str(document.get("message", ""))
    except (ValueError, AttributeError):
        cause, message = "", body[:300].decode(errors="replace")
    text = f"{cause} {message}".lower()
    told = message or cause or f"HTTP status {status}"
    if "image not known" in text or "no such image" in text:
        return NoSuchImageError(told, reason=reason)
    if "is already in use" in text and "name" in text:
        return NameInUseError(told, reason=reason)
    if "address already in use" in text or "port is already allocated" in text:
        return PortInUseError(told, reason="CannotStartContainerError")
    if any(sign in text for sign in NO_SPACE):
        return EngineFullError(told, reason=reason, hint="Free some space on the device.")
    if status == _NOT_FOUND or "no such container" in text:
        return (missing or NoSuchContainerError)(told, reason=reason)
    return EngineError(told, reason=reason)


def _innermost(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
