"""Keep a child's descriptors while it is dead: systemd's fd store, for hosts without systemd.

The protocol is `sd_notify(3)`'s: a datagram on the Unix socket named in `NOTIFY_SOCKET`, `FDSTORE=1` and
`FDNAME=<name>` with descriptors attached; `FDSTOREREMOVE=1` with `FDNAME=<name>` lets go of them. What is stored is
passed at the next start behind the sockets, under its name in `LISTEN_FDNAMES`. As with systemd's `FDPOLL=0`, a
descriptor is kept until it is removed, whatever state its other end is in.
"""

import array
import os
import re
import socket
from pathlib import Path

from edge.errors import InvalidInputError

MAX_DESCRIPTORS = 64
MAX_UNIX_PATH = 107
"""`sun_path` in `unix(7)`: 108 bytes with the terminating zero."""
_MAX_MESSAGE = 4096
_DEFAULT_NAME = "stored"  # sd_notify(3)
_NAME = re.compile(r"[!-9;-~]{1,255}")  # Printable ASCII without the colon that separates LISTEN_FDNAMES.


class FdStore:
    """The descriptors of one child, and the socket they come by.

    Raises:
        InvalidInputError: `path` is too long for a Unix socket.
    """

    def __init__(self, path: Path) -> None:
        check_socket_path(path)
        self.path = path
        self._kept: list[tuple[str, int]] = []
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        path.chmod(0o600)

    def fileno(self) -> int:
        """Return the descriptor to wait on; `receive` when it is readable."""
        return self._socket.fileno()

    def descriptors(self) -> tuple[tuple[str, int], ...]:
        """Return `(name, descriptor)` of everything kept, oldest first."""
        return tuple(self._kept)

    def receive(self) -> None:
        """Take in every message that has arrived. A malformed one is dropped, and its descriptors closed."""
        space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            self._take(data, _descriptors_in(ancillary))

    def _take(self, data: bytes, descriptors: list[int]) -> None:
        words = dict(line.partition("=")[::2] for line in data.decode(errors="replace").splitlines())
        name = words.get("FDNAME", _DEFAULT_NAME)
        if words.get("FDSTOREREMOVE") == "1":
            for kept in [pair for pair in self._kept if pair[0] == name]:
                self._kept.remove(kept)
                os.close(kept[1])
        room = MAX_DESCRIPTORS - len(self._kept)
        wanted = words.get("FDSTORE") == "1" and _NAME.fullmatch(name) is not None
        keep = descriptors[:room] if wanted else []
        self._kept += [(name, descriptor) for descriptor in keep]
        for descriptor in descriptors[len(keep) :]:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of everything."""
        for _, descriptor in self._kept:
            os.close(descriptor)
        self._kept.clear()
        self._socket.close()
        self.path.unlink(missing_ok=True)


def check_socket_path(path: Path) -> None:
    """Raise `InvalidInputError` when the kernel could not bind a Unix socket at `path`."""
    length = len(os.fsencode(path))
    if length > MAX_UNIX_PATH:
        raise InvalidInputError(
            f"the socket path {path} has {length} bytes; Linux takes at most {MAX_UNIX_PATH}",
            hint="Choose a shorter path, for example under /run.",
        )


def _descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
