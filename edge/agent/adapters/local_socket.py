"""The agent's Unix socket, for whoever stands at the device: one request a connection, asked of the engine's thread.

Who may connect is decided twice: by the file's mode, and by the kernel's word about the peer (`SO_PEERCRED`), because a
file's mode is easily made wider than was meant.
"""

import contextlib
import grp
import json
import logging
import os
import pwd
import queue
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge.agent.engine.events import LocalAsked
from edge.agent.engine.local_requests import LocalRequest, Peer, parse_request
from edge.agent.engine.ports import ContainerEngine
from edge.ask import error_told
from edge.errors import EdgeError, InvalidInputError, NotFoundError, RefusedError, TransientError
from edge.fd_store import check_socket_path

_log = logging.getLogger(__name__)

MAXIMUM_LINE: Final = 256 * 1024
MAXIMUM_CONNECTIONS: Final = 8
_REQUEST_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 30.0
_MAXIMUM_TAIL: Final = 10_000
_PEER: Final = struct.Struct("3i")

Ask = Callable[[LocalAsked], None]


class LocalSocket:
    """Listens until `close`; each connection has a thread while it lasts."""

    def __init__(self, path: Path, group: str, put: Ask, containers: ContainerEngine) -> None:
        """Listen.

        Args:
            path: Of the socket.
            group: Whose members may ask besides root and the agent's own user; empty for nobody.
            put: Takes questions to the engine.
            containers: Has the logs.

        Raises:
            InvalidInputError: The path is too long, or there is no such group.
            EdgeError: The socket cannot be made.
        """
        check_socket_path(path)
        self._path = path
        self._put = put
        self._containers = containers
        self._group = _group_id(group)
        self._slots = threading.BoundedSemaphore(MAXIMUM_CONNECTIONS)
        self._socket = self._listen()
        self._closed = False
        threading.Thread(target=self._accept, name="local", daemon=True).start()

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        before = os.umask(0o117)
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            listening.bind(str(self._path))
            if self._group is not None:
                os.chown(self._path, -1, self._group)
            listening.listen(MAXIMUM_CONNECTIONS)
        except OSError as error:
            listening.close()
            raise EdgeError(f"cannot make the socket {self._path}: {error.strerror}") from error
        finally:
            os.umask(before)
        return listening

    def close(self) -> None:
        """Listen no more."""
        self._closed = True
        with contextlib.suppress(OSError):
            # Wakes the thread in accept().
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while not self._closed:
            self._slots.acquire()
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="local-peer", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                connection.settimeout(_REQUEST_SECONDS)
                try:
                    answer = {"result": self._answer(connection, stream.readline(MAXIMUM_LINE), stream.write)}
                except EdgeError as error:
                    answer = {"error": error_told(error)}
                stream.write(_line(answer))
        except OSError as error:
            _log.debug("somebody at the device went away: %s", error)
        finally:
            self._slots.release()

    def _answer(self, connection: socket.socket, line: bytes, write: Callable[[bytes], object]) -> Any:
        peer = self._peer(connection)
        try:
            asked: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError("the agent is asked by one JSON object in a line") from error
        if not isinstance(asked, dict):
            raise InvalidInputError("the agent is asked by one JSON object in a line")
        if asked.get("op") == "logs":
            connection.settimeout(None)
            return self._logs(asked, peer, write)
        return self._ask(parse_request(asked), peer)

    def _ask(self, request: LocalRequest, peer: Peer) -> dict[str, Any]:
        answers: queue.SimpleQueue[dict[str, Any] | EdgeError] = queue.SimpleQueue()
        self._put(LocalAsked(request, peer, answers.put))
        try:
            answer = answers.get(timeout=_ANSWER_SECONDS)
        except queue.Empty as error:
            raise TransientError("the agent is busy; it may do what was asked all the same") from error
        if isinstance(answer, EdgeError):
            raise answer
        return answer

    def _logs(self, asked: Mapping[str, Any], peer: Peer, write: Callable[[bytes], object]) -> dict[str, Any]:
        (task,) = self._ask(parse_request({"op": "describe", "taskId": asked.get("taskId")}), peer)["tasks"]
        name, tail = asked.get("container"), asked.get("tail")
        sources = [c for c in task["containers"] if name in (None, "", c["name"]) and c.get("runtimeId")]
        if not sources:
            raise NotFoundError(f"task {task['taskId'][:12]} has no such container with a log")
        if len(sources) > 1 and asked.get("follow"):
            names = ", ".join(c["name"] for c in sources)
            raise InvalidInputError(f"the task has several containers ({names})", hint="Name the one to follow.")
        lines = min(tail, _MAXIMUM_TAIL) if isinstance(tail, int) and tail >= 0 else None
        for container in sources:
            for one in self._containers.logs(container["runtimeId"], tail=lines, follow=bool(asked.get("follow"))):
                told = {"container": container["name"], "time": one.time, "stream": one.stream, "text": one.text}
                write(_line({"progress": told}))
        return {}

    def _peer(self, connection: socket.socket) -> Peer:
        pid, uid, gid = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        if uid not in (0, os.geteuid()) and (self._group is None or self._group not in _groups(name, gid)):
            raise RefusedError(f"user {name} may not ask this agent", hint="Ask as root.")
        return Peer(uid, pid, name)


def _groups(name: str, gid: int) -> list[int]:
    try:
        return os.getgrouplist(name, gid)
    except (KeyError, OSError):
        return [gid]


def _group_id(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise InvalidInputError(f"there is no group {group}", hint="Look at local.group in agent.toml.") from error


def _line(told: Mapping[str, Any]) -> bytes:
    return json.dumps(told).encode() + b"\n"
