"""Answers the kernel: one thread for everything that is at hand, a few for reads that must wait.

More threads on one descriptor make it slower: they take turns at the interpreter (measured: 1.9 down to 0.7 GB/s).
"""

import errno
import json
import logging
import os
import select
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from edge.errors import EdgeError
from edge.images.fuse import protocol
from edge.images.fuse.filesystem import Entry, FileSystem
from edge.images.fuse.protocol import InitFlag, NotifyCode, Opcode

_log = logging.getLogger(__name__)

_VALID_SECONDS: Final = 10 * 365 * 86_400
"""Layers never change: what the kernel knows it need not ask again."""
_NEGATIVE_SECONDS: Final = 86_400
_BUFFER: Final = 256 * 1024
"""The kernel refuses to read a request into less than `max_write` and the headers need."""
_MAX_WRITE: Final = 4096
_MAX_PAGES: Final = 256
_MAX_BACKGROUND: Final = 64
_WAITING_READS: Final = 32
"""Reads that may wait for content at a time; a further one waits for its turn."""
_SECOND_LOOK_SECONDS: Final = 1.0
_STOP: Final = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF)
_TRY_AGAIN: Final = (errno.EINTR, errno.ENOENT)
"""ENOENT: the request was interrupted before it was read."""

_DOTS: Final = (b".", b"..")
"""Told with node 0: names only, which the kernel does not look up."""

Answer = tuple[bytes | memoryview, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """What kernel and server agreed on at INIT; a server that takes over a mount must be told.

    Attributes:
        minor: The protocol's minor version in use.
        resend: The kernel sends requests again that a dead server left unanswered (Linux 6.9).
        idmap: Containers with a user namespace of their own can use the mount (Linux 6.12).
    """

    minor: int
    resend: bool
    idmap: bool = False

    def to_json(self) -> bytes:
        """Return it as it is kept beside the mount."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Session":
        """Read what `to_json` wrote."""
        return cls(**json.loads(data))


class FuseServer:
    """Serves one mount until it is unmounted or `stop` is called.

    Args:
        descriptor: `/dev/fuse` of the mount; stays the caller's.
        files: What is served.
        session: Of the server before this one; None for a new mount.
        agreed: Told once a new mount's session is known.

    Attributes:
        ready: Set once the kernel's first word is answered: from then on the mount is in use.
    """

    def __init__(
        self,
        descriptor: int,
        files: FileSystem,
        session: Session | None = None,
        agreed: Callable[[Session], None] = lambda _: None,
    ) -> None:
        self._descriptor = descriptor
        self._files = files
        self._session = session
        self._agreed = agreed
        self._pool = ThreadPoolExecutor(_WAITING_READS, thread_name_prefix="read")
        self._asker = 0
        self._waiting: dict[int, int] = {}
        self.ready = threading.Event()
        if session is not None:
            self.ready.set()
        self._stopped = threading.Event()
        self._waking = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        # Polled only when nothing is there: a server before this one may still take a request that poll told of.
        os.set_blocking(descriptor, False)
        self._handlers: dict[int, Callable[[int, int, memoryview], None]] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.FORGET: self._ignore,
            Opcode.BATCH_FORGET: self._ignore,
            Opcode.GETATTR: self._attributes,
            Opcode.READLINK: self._link,
            Opcode.READ: self._read,
            Opcode.READDIR: self._read_folder,
            Opcode.READDIRPLUS: self._read_folder_plus,
            Opcode.STATFS: self._statfs,
            Opcode.GETXATTR: self._xattr,
            Opcode.LISTXATTR: self._list_xattrs,
            Opcode.INTERRUPT: self._interrupt,
            Opcode.INIT: self._init,
            Opcode.DESTROY: self._destroy,
        }

    def serve(self) -> None:
        """Answer until the mount is gone or `stop`; requests the server before left open are asked for again."""
        if self._session is not None and self._session.resend:
            self._notify(NotifyCode.RESEND)
        gone = self._answer_all()
        self._stopped.set()
        with self._waking:
            os.close(self._wake)
            self._wake = -1
        # Without RESEND nobody else would ever answer them.
        cancelled = gone or (self._session is not None and self._session.resend)
        self._pool.shutdown(wait=not cancelled, cancel_futures=cancelled)

    def _answer_all(self) -> bool:
        """Return whether the mount is gone; False when stopped."""
        poll = select.poll()
        for descriptor in (self._descriptor, self._wake):
            poll.register(descriptor, select.POLLIN)
        buffer = bytearray(_BUFFER)
        view = memoryview(buffer)
        while not self._stopped.is_set():
            try:
                count = os.readv(self._descriptor, (buffer,))
            except OSError as error:
                if error.errno in _STOP:
                    return True
                if error.errno == errno.EAGAIN:
                    poll.poll()
                elif error.errno not in _TRY_AGAIN:
                    raise
            else:
                self._answer(view[:count])
        return False

    def _answer(self, request: memoryview) -> None:
        _, opcode, unique, node, _, _, self._asker, _, _ = protocol.IN_HEADER.unpack_from(request)
        handler = self._handlers.get(opcode)
        if handler is None:
            self._fail(unique, errno.ENOSYS)
            return
        try:
            handler(unique, node, request[protocol.IN_HEADER.size :])
        except KeyError:
            self._fail(unique, errno.ESTALE)
        except Exception:  # noqa: BLE001 - one request's failure must not end the others
            _log.exception("request %d on node %x failed", opcode, node)
            self._fail(unique, errno.EIO)

    def stop(self) -> None:
        """Let `serve` take no more requests and return; the mount stays, and waits for the next server."""
        self._stopped.set()
        with self._waking:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _notify(self, code: NotifyCode, *parts: bytes | memoryview) -> None:
        length = protocol.OUT_HEADER.size + sum(len(part) for part in parts)
        # ENOENT: the kernel does not know the node or name, so it has nothing to forget.
        with suppress(OSError):
            os.writev(self._descriptor, (protocol.OUT_HEADER.pack(length, code, 0), *parts))

    def _reply(self, unique: int, *parts: bytes | memoryview) -> None:
        length = protocol.OUT_HEADER.size + sum(len(part) for part in parts)
        self._write(unique, (protocol.OUT_HEADER.pack(length, 0, unique), *parts))

    def _fail(self, unique: int, number: int) -> None:
        self._write(unique, (protocol.OUT_HEADER.pack(protocol.OUT_HEADER.size, -number, unique),))

    def _write(self, unique: int, parts: Answer) -> None:
        try:
            os.writev(self._descriptor, parts)
        except OSError as error:
            # ENOENT: whoever asked was killed meanwhile. The others: the mount is gone.
            if error.errno not in (*_STOP, errno.ENOENT):
                _log.warning("the kernel did not take answer %x: %s", unique, error.strerror)

    # --- the session

    def _init(self, unique: int, _node: int, body: memoryview) -> None:
        _, minor, max_readahead, low = protocol.INIT_IN.unpack_from(body)
        offered = low
        if low & InitFlag.INIT_EXT:
            offered |= protocol.INIT_FLAGS2.unpack_from(body, protocol.INIT_IN.size)[0] << 32
        if minor < protocol.MINIMUM_MINOR:
            _log.error("the kernel speaks FUSE 7.%d; 7.%d is needed", minor, protocol.MINIMUM_MINOR)
            self._fail(unique, errno.EPROTO)
            return
        chosen = offered & protocol.WANTED
        answer = protocol.INIT_OUT.pack(
            protocol.MAJOR,
            min(minor, protocol.MINOR),
            max_readahead,
            chosen & 0xFFFFFFFF,
            _MAX_BACKGROUND,
            _MAX_BACKGROUND * 3 // 4,
            _MAX_WRITE,
            1,
            _MAX_PAGES,
            0,
            chosen >> 32,
            0,
        )
        self._session = Session(
            minor=min(minor, protocol.MINOR),
            resend=bool(chosen & InitFlag.HAS_RESEND),
            idmap=bool(chosen & InitFlag.ALLOW_IDMAP),
        )
        # Before the answer: from then on the mount is in use, and whoever takes it over needs to know.
        self._agreed(self._session)
        self._reply(unique, answer)
        self.ready.set()

    def _destroy(self, unique: int, _node: int, _body: memoryview) -> None:
        self._reply(unique)
        self._stopped.set()

    def _ignore(self, unique: int, node: int, body: memoryview) -> None:
        """Nodes need no counting: they are as long as their layer is served."""

    # --- names and attributes

    def _lookup(self, unique: int, node: int, body: memoryview) -> None:
        found = self._files.lookup(node, bytes(body[:-1]))
        if found is not None:
            self._reply(unique, self._entry(node, found), found.attributes)
        elif self._files.lasts(node):
            # Node 0 with a time-out: the kernel remembers that there is nothing.
            self._reply(unique, protocol.ENTRY_OUT.pack(0, 0, _NEGATIVE_SECONDS, 0, 0, 0), bytes(protocol.ATTR.size))
        else:
            self._fail(unique, errno.ENOENT)

    def _attributes(self, unique: int, node: int, _body: memoryview) -> None:
        self._reply(unique, protocol.ATTR_OUT.pack(self._valid_seconds(node), 0, 0), self._files.attributes(node))

    def _entry(self, parent: int, found: Entry) -> bytes:
        name, attributes = self._valid_seconds(parent), self._valid_seconds(found.node)
        return protocol.ENTRY_OUT.pack(found.node, 0, name, attributes, 0, 0)

    def _valid_seconds(self, node: int) -> int:
        """How long the kernel need not ask.

        What may change is asked for each time instead of being taken back: a thread that takes a name back waits for
        whoever looks it up at that moment, and if this process is killed then, neither of the two ever ends.
        """
        return _VALID_SECONDS if self._files.lasts(node) else 0

    def _link(self, unique: int, node: int, _body: memoryview) -> None:
        self._reply(unique, self._files.link(node))

    def _statfs(self, unique: int, _node: int, _body: memoryview) -> None:
        self._reply(unique, protocol.STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0))

    def _xattr(self, unique: int, node: int, body: memoryview) -> None:
        (size, _) = protocol.GETXATTR_IN.unpack_from(body)
        value = self._files.xattrs(node).get(bytes(body[protocol.GETXATTR_IN.size : -1]))
        if value is None:
            self._fail(unique, errno.ENODATA)
        else:
            self._sized(unique, size, value)

    def _list_xattrs(self, unique: int, node: int, body: memoryview) -> None:
        (size, _) = protocol.GETXATTR_IN.unpack_from(body)
        self._sized(unique, size, b"".join(name + b"\0" for name in self._files.xattrs(node)))

    def _sized(self, unique: int, size: int, value: bytes) -> None:
        if size == 0:
            self._reply(unique, protocol.GETXATTR_OUT.pack(len(value), 0))
        elif size < len(value):
            self._fail(unique, errno.ERANGE)
        else:
            self._reply(unique, value)

    # --- content

    def _read(self, unique: int, node: int, body: memoryview) -> None:
        _, offset, size, *_ = protocol.READ_IN.unpack_from(body)
        data = self._files.ready(node, offset, size)
        if data is None:
            self._waiting[unique] = self._asker
            self._pool.submit(self._read_later, unique, node, offset, size)
        else:
            self._reply(unique, data)

    def _interrupt(self, _unique: int, _node: int, body: memoryview) -> None:
        (interrupted,) = protocol.INTERRUPT_IN.unpack_from(body)
        self._let_go(interrupted)

    def _let_go(self, unique: int) -> None:
        """Answer a waiting reader that was killed: until then it would not die, and its container would not stop.

        Others get what they wait for. Programs do not expect EINTR from files, and a page fault would end them. The
        kernel tells of the first signal only, so that a second look is ours to take.
        """
        reader = self._waiting.get(unique)
        if reader is None:
            return
        if not _is_killed(reader):
            again = threading.Timer(_SECOND_LOOK_SECONDS, self._let_go, (unique,))
            again.daemon = True
            again.start()
        elif self._waiting.pop(unique, None) is not None:
            self._fail(unique, errno.EINTR)

    def _read_later(self, unique: int, node: int, offset: int, size: int) -> None:
        if unique not in self._waiting:
            return
        answer: Callable[[], None]
        try:
            data = self._files.read(node, offset, size)
        except EdgeError as error:
            _log.warning("cannot read %d bytes at %d of node %x: %s", size, offset, node, error)
            answer = partial(self._fail, unique, errno.EIO)
        except Exception:  # noqa: BLE001 - an unanswered reader would hang for ever
            _log.exception("cannot read %d bytes at %d of node %x", size, offset, node)
            answer = partial(self._fail, unique, errno.EIO)
        else:
            answer = partial(self._reply, unique, data)
        if self._waiting.pop(unique, None) is not None:
            answer()

    def _read_folder(self, unique: int, node: int, body: memoryview) -> None:
        self._list(unique, node, body, plus=False)

    def _read_folder_plus(self, unique: int, node: int, body: memoryview) -> None:
        self._list(unique, node, body, plus=True)

    def _list(self, unique: int, node: int, body: memoryview, *, plus: bool) -> None:
        _, offset, size, *_ = protocol.READ_IN.unpack_from(body)
        parts: list[bytes] = []
        room = size
        for number, found in enumerate(self._all_entries(node, offset), offset + 1):
            line = _folder_line(found, number, self._entry(node, found) if plus else None)
            room -= len(line)
            if room < 0:
                break
            parts.append(line)
        self._reply(unique, b"".join(parts))

    def _all_entries(self, node: int, first: int) -> Iterator[Entry]:
        if first < len(_DOTS):
            attributes = self._files.attributes(node)
            yield from (Entry(name, 0, attributes) for name in _DOTS[first:])
        yield from self._files.entries(node, max(0, first - len(_DOTS)))


def _is_killed(thread: int) -> bool:
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return False
    return bool(int(status.partition("\nSigPnd:")[2].split()[0], 16) & 1 << (signal.SIGKILL - 1))


def _folder_line(found: Entry, number: int, entry: bytes | None) -> bytes:
    inode, *_, mode, _links, _uid, _gid, _device, _block, _flags = protocol.ATTR.unpack(found.attributes)
    head = protocol.DIRENT.pack(inode, number, len(found.name), stat.S_IFMT(mode) >> 12)
    line = (head + found.name).ljust(protocol.padded(len(head) + len(found.name)), b"\0")
    return line if entry is None else entry + found.attributes + line
