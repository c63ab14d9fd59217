"""inotify(7) through the C library: who waits for a file to grow sleeps until the kernel says so."""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

MODIFIED: Final = 0x00000002
MOVED_HERE: Final = 0x00000080
CREATED: Final = 0x00000100
OVERFLOW: Final = 0x00004000
"""IN_MODIFY, IN_MOVED_TO, IN_CREATE and IN_Q_OVERFLOW of linux/inotify.h."""

_HEADER: Final = struct.Struct("iIII")
"""struct inotify_event: wd, mask, cookie, length of the name that follows."""
_READ_BYTES: Final = 64 * 1024
_libc = ctypes.CDLL(None, use_errno=True)


class FileEvent(NamedTuple):
    """Something happened in a watched folder; `watch` is -1 when the kernel lost events (OVERFLOW)."""

    watch: int
    mask: int
    name: str


class Inotify:
    """Folders that are watched. Every method raises OSError as the system call does."""

    def __init__(self) -> None:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), None)

    def fileno(self) -> int:
        """Return what a selector waits on."""
        return self._descriptor

    def watch(self, folder: Path, mask: int) -> int:
        """Watch what happens to the files of a folder, and return the watch's number."""
        return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask), folder)

    def unwatch(self, watch: int) -> None:
        """Watch no longer; a folder that is gone is none any more."""
        _libc.inotify_rm_watch(self._descriptor, watch)

    def read(self) -> list[FileEvent]:
        """Return what happened since the last call; nothing is no error."""
        events: list[FileEvent] = []
        while True:
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return events
            events += parse_events(data)
            if len(data) < _READ_BYTES // 2:
                return events

    def close(self) -> None:
        """End all watches."""
        os.close(self._descriptor)


def parse_events(data: bytes) -> list[FileEvent]:
    """Take what one read returned apart."""
    events, position = [], 0
    while position + _HEADER.size <= len(data):
        watch, mask, _, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
        events.append(FileEvent(watch, mask, name))
        position += length
    return events


def _checked(result: int, folder: Path | None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), None if folder is None else str(folder))
    return result
