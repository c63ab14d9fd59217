"""A disk of which calls fail as told, and do not happen then; or, for `sync`, happen in part."""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge.agent.store.disk import Disk

CHANGING = ("make_folder", "create", "allocate", "write", "sync", "rename", "remove", "sync_folder")


@dataclass(slots=True)
class FailingDisk:
    """The `Disk` port before another one.

    Attributes:
        fails: Is asked before each call that changes something, with its name and how many there were before; returns
            an errno, or None.
        calls: What was asked, in order.
    """

    disk: Disk
    fails: Callable[[str, int], int | None] = lambda _call, _number: None
    calls: list[str] = field(default_factory=list)

    def make_folder(self, folder: Path) -> bool:
        self._ask("make_folder")
        return self.disk.make_folder(folder)

    def names(self, folder: Path) -> list[str]:
        return self.disk.names(folder)

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        if create:
            self._ask("create")
        return self.disk.open(path, write=write, create=create)

    def close(self, handle: int) -> None:
        self.disk.close(handle)

    def allocate(self, handle: int, size: int) -> None:
        self._ask("allocate")
        self.disk.allocate(handle, size)

    def write(self, handle: int, data: bytes, offset: int) -> None:
        try:
            self._ask("write")
        except OSError:
            # A write that fails may have written its beginning.
            self.disk.write(handle, data[: len(data) // 2], offset)
            raise
        self.disk.write(handle, data, offset)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        return self.disk.read(handle, size, offset)

    def sync(self, handle: int) -> None:
        self._ask("sync")
        self.disk.sync(handle)

    def rename(self, old: Path, new: Path) -> None:
        self._ask("rename")
        self.disk.rename(old, new)

    def remove(self, path: Path) -> None:
        self._ask("remove")
        self.disk.remove(path)

    def sync_folder(self, folder: Path) -> None:
        self._ask("sync_folder")
        self.disk.sync_folder(folder)

    def free_bytes(self, folder: Path) -> int:
        return self.disk.free_bytes(folder)

    def _ask(self, call: str) -> None:
        number = len(self.calls)
        self.calls.append(call)
        found = self.fails(call, number)
        if found is not None:
            raise OSError(found, errno.errorcode[found])
