"""The image service's Unix socket: one JSON object in a line asks, lines of JSON answer.

    {"op": "prepare", "image": "registry.example/app:1", "architecture": "arm64"}
    {"progress": {"done": 1048576, "total": 3482216}}            any number of them
    {"result": {…}}  or  {"error": {"kind", "message", "hint", "retry"}}

Operations: `prepare`, `sealed`, `import`, `list`, `indexes`, `remove`, `prune`, `protect`, `notes`, `older`, `ready` (a
container of `image` is ready, its start ends), `profiles` (of `imageId`, or all), `takeProfile` (`profile`).
A connection asks one thing and is closed. The socket is root's alone: whoever may use it can make the device fetch
images.
"""

import json
import logging
import os
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge.ask import error_told
from edge.errors import EdgeError, InvalidInputError
from edge.fd_store import check_socket_path
from edge.images.service import ImageService
from edge.model.start_profile import MAX_PROFILE_BYTES, profile_of

_log = logging.getLogger(__name__)

_MAXIMUM_LINE: Final = MAX_PROFILE_BYTES + 4096
_PROGRESS_SECONDS: Final = 0.2
Say = Callable[[Mapping[str, Any]], None]


class ApiServer:
    """Answers on a socket, one thread for each connection, until `close`."""

    def __init__(self, path: Path, service: ImageService) -> None:
        """Listen.

        Raises:
            InvalidInputError: The path is too long for a socket.
            EdgeError: It cannot be made.
        """
        check_socket_path(path)
        before = os.umask(0o077)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._server = _Server(str(path), service)
        except OSError as error:
            raise EdgeError(f"cannot make the socket {path}: {error.strerror}") from error
        finally:
            os.umask(before)
        self._path = path
        threading.Thread(target=self._server.serve_forever, name="api", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, path: str, service: ImageService) -> None:
        self.service = service
        super().__init__(path, _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            line = self.rfile.readline(_MAXIMUM_LINE)
            self._say({"result": answer(self.server.service, line, self._say)})
        except BrokenPipeError:
            return
        except EdgeError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - whoever asks gets an answer, and the next one too
            _log.exception("a request to the image service failed")
            self._fail(EdgeError(f"{type(error).__name__}: {error}"))

    def _say(self, told: Mapping[str, Any]) -> None:
        self.wfile.write(json.dumps(told).encode() + b"\n")

    def _fail(self, error: EdgeError) -> None:
        try:
            self._say({"error": error_told(error)})
        except OSError:
            return


def answer(service: ImageService, line: bytes, say: Say) -> Any:
    """Do what a line asks, and return the result.

    Raises:
        EdgeError: It cannot be done, or the line asks nothing known.
    """
    try:
        asked = json.loads(line)
        operation = _OPERATIONS[asked["op"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"the image service knows no such request: {line[:100]!r}") from error
    return operation(service, asked, say)


def _prepare(service: ImageService, asked: Mapping[str, Any], say: Say) -> Any:
    proven = asked.get("proven") is True
    image, architecture = _text(asked, "image"), _text(asked, "architecture")
    return service.prepare(image, architecture, _progress(say), proven=proven).to_json()


def _sealed(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    return service.sealed(_text(asked, "imageId"))


def _import(service: ImageService, asked: Mapping[str, Any], say: Say) -> Any:
    path, tag, name = Path(_text(asked, "path")), str(asked.get("tag") or ""), _text(asked, "name")
    return service.take(path, tag, name, _text(asked, "architecture"), _progress(say)).to_json()


def _progress(say: Say) -> Callable[[int, int], None]:
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS:
            last = now
            say({"progress": {"done": done, "total": total}})

    return progress


def _list(service: ImageService, _asked: Mapping[str, Any], _say: Say) -> Any:
    return [status.to_json() for status in service.images()]


def _indexes(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    return {digest: str(path) for digest, path in service.kept_indexes(_text(asked, "image")).items()}


def _remove(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    return service.remove(_text(asked, "image"), force=asked.get("force") is True).to_json()


def _prune(service: ImageService, _asked: Mapping[str, Any], _say: Say) -> Any:
    return [status.to_json() for status in service.prune()]


def _protect(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    ids = asked.get("imageIds")
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise InvalidInputError("protect: imageIds must be a list of image ids")
    service.protect(ids)
    return None


def _ready(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    found = service.ready(_text(asked, "image"))
    return None if found is None else {"starts": found.starts, "ranges": len(found.ranges), "bytes": found.size}


def _profiles(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    wanted = asked.get("imageId") or ""
    return [found.to_json() for found in service.profiles() if wanted in {"", found.image_id}]


def _take_profile(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    service.take_profile(profile_of(asked.get("profile")))
    return None


def _notes(service: ImageService, _asked: Mapping[str, Any], _say: Say) -> Any:
    return [{"time": when, "text": text} for when, text in service.notes]


def _older(service: ImageService, asked: Mapping[str, Any], _say: Say) -> Any:
    return [{"digest": digest, "recipe": str(path)} for digest, path in service.older(_text(asked, "image"))]


def _text(asked: Mapping[str, Any], key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{asked.get('op')}: {key} must be given")
    return value


_OPERATIONS: Final[Mapping[str, Callable[[ImageService, Mapping[str, Any], Say], Any]]] = {
    "prepare": _prepare,
    "sealed": _sealed,
    "import": _import,
    "list": _list,
    "indexes": _indexes,
    "remove": _remove,
    "prune": _prune,
    "protect": _protect,
    "notes": _notes,
    "older": _older,
    "ready": _ready,
    "profiles": _profiles,
    "takeProfile": _take_profile,
}
