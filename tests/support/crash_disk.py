"""A disk in memory that remembers every call, and the disks that may be left when the power goes after any of them.

The model: written bytes are kept in sectors of 512; until the file is synced each sector may be there or not. A name is
there when its folder was synced; until then each change of names may have happened or not, and a change that presumes
another that did not happen has not happened either.
"""

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512
Operation = tuple[Any, ...]
PLENTY = 1 << 40


@dataclass(slots=True)
class CrashDisk:
    """The `Disk` port. `operations` is what was done, in order; reading is none."""

    names_of: dict[str, int] = field(default_factory=dict)
    files: dict[int, bytearray] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/"})
    operations: list[Operation] = field(default_factory=list)
    free: int = PLENTY
    _handles: dict[int, int] = field(default_factory=dict)
    _writable: set[int] = field(default_factory=set)
    _next: int = 1

    def make_folder(self, folder: Path) -> bool:
        if str(folder.parent) not in self.folders:
            raise _error(errno.ENOENT)
        if str(folder) in self.folders:
            return False
        self._did("mkdir", str(folder))
        self.folders.add(str(folder))
        return True

    def names(self, folder: Path) -> list[str]:
        if str(folder) not in self.folders:
            raise _error(errno.ENOENT)
        prefix = f"{folder}/"
        return [name[len(prefix) :] for name in self.names_of if name.startswith(prefix)]

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        name = str(path)
        if create:
            if str(path.parent) not in self.folders:
                raise _error(errno.ENOENT)
            if name in self.names_of:
                raise _error(errno.EEXIST)
            inode = self._new()
            self._did("create", name, inode)
            self.names_of[name], self.files[inode] = inode, bytearray()
        if name not in self.names_of:
            raise _error(errno.ENOENT)
        handle = self._new()
        self._handles[handle] = self.names_of[name]
        if write or create:
            self._writable.add(handle)
        return handle

    def close(self, handle: int) -> None:
        del self._handles[handle]
        self._writable.discard(handle)

    def allocate(self, handle: int, size: int) -> None:
        inode = self._handles[handle]
        if len(self.files[inode]) < size:
            self._did("allocate", inode, size)
            self.files[inode].extend(bytes(size - len(self.files[inode])))

    def write(self, handle: int, data: bytes, offset: int) -> None:
        if handle not in self._writable:
            raise _error(errno.EBADF)
        inode = self._handles[handle]
        self._did("write", inode, offset, bytes(data))
        _put(self.files[inode], offset, data)

    def read(self, handle: int, size: int, offset: int) -> bytes:
        return bytes(self.files[self._handles[handle]][offset : offset + size])

    def sync(self, handle: int) -> None:
        self._did("sync", self._handles[handle])

    def rename(self, old: Path, new: Path) -> None:
        if str(old) not in self.names_of:
            raise _error(errno.ENOENT)
        self._did("rename", str(old), str(new))
        self.names_of[str(new)] = self.names_of.pop(str(old))

    def remove(self, path: Path) -> None:
        if str(path) not in self.names_of:
            raise _error(errno.ENOENT)
        self._did("remove", str(path))
        del self.names_of[str(path)]

    def sync_folder(self, folder: Path) -> None:
        if str(folder) not in self.folders:
            raise _error(errno.ENOENT)
        self._did("sync_folder", str(folder))

    def free_bytes(self, folder: Path) -> int:
        del folder
        return self.free

    @property
    def open_handles(self) -> int:
        return len(self._handles)

    def kill(self) -> None:
        """The process that used it is gone; what it wrote is in the kernel's memory."""
        self._handles.clear()
        self._writable.clear()

    def _did(self, *operation: Any) -> None:
        self.operations.append(operation)

    def _new(self) -> int:
        self._next += 1
        return self._next


@dataclass(slots=True)
class Aftermath:
    """What is on the disk for sure after some operations, and what may be."""

    names: dict[str, int]
    files: dict[int, bytes]
    folders: set[str]
    sizes: dict[int, int] = field(default_factory=dict)
    unsynced: dict[int, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    """Writes; no bytes: the file was given that size."""
    changes: list[tuple[str, Operation]] = field(default_factory=list)
    lies: frozenset[str] = frozenset()
    """Calls that do nothing, for mutants: `sync`, `sync_folder`."""

    @classmethod
    def of(cls, disk: CrashDisk, lies: frozenset[str] = frozenset()) -> "Aftermath":
        """A disk after a clean start: all that is there is there for sure."""
        files = {inode: bytes(content) for inode, content in disk.files.items()}
        return cls(dict(disk.names_of), files, set(disk.folders), lies=lies)

    def apply(self, operation: Operation) -> None:
        """Take the next operation into account."""
        match operation:
            case ("write", inode, offset, data):
                self.unsynced.setdefault(inode, []).append((offset, data))
            case ("truncate", inode, size):
                self.unsynced.setdefault(inode, []).append((size, None))
            case ("allocate", inode, size):
                self.sizes[inode] = size
            case ("sync", inode):
                if "sync" not in self.lies:
                    self.files[inode] = bytes(self._written(inode, None))
                    self.unsynced.pop(inode, None)
                    self.sizes.pop(inode, None)
            case ("sync_folder", folder):
                if "sync_folder" not in self.lies:
                    for _, change in [one for one in self.changes if one[0] == folder]:
                        _change(self.names, self.folders, change)
                    self.changes = [one for one in self.changes if one[0] != folder]
            case _:
                self.changes.append((str(Path(str(operation[1])).parent), operation))

    def disks(self, chance: random.Random, count: int) -> Iterator[CrashDisk]:
        """Yield some of the disks that may be left: nothing unsynced, all of it, and random parts."""
        for number in range(count):
            likely = (0.0, 1.0)[number] if number < 2 else chance.choice((0.2, 0.5, 0.8, 0.95))
            names, folders = dict(self.names), set(self.folders)
            for _, change in self.changes:
                if chance.random() < likely:
                    _change(names, folders, change)
            kept = {name: inode for name, inode in names.items() if str(Path(name).parent) in folders}
            inodes = set(kept.values())
            contents = {}
            for inode in inodes:
                touched = inode in self.unsynced or inode in self.sizes
                content = self._written(inode, (chance, likely)) if touched else self.files.get(inode, b"")
                contents[inode] = bytearray(content)
            highest = max(self.files.keys() | inodes | self.unsynced.keys(), default=0)
            yield CrashDisk(kept, contents, folders, _next=highest + 1)

    def _written(self, inode: int, chance: "tuple[random.Random, float] | None") -> bytearray:
        content = bytearray(self.files.get(inode, b""))
        size = self.sizes.get(inode, 0)
        if size > len(content) and (chance is None or chance[0].random() < chance[1]):
            content.extend(bytes(size - len(content)))
        for offset, data in self.unsynced.get(inode, ()):
            if chance is None or chance[1] in {0.0, 1.0} or data is None:
                if chance is None or chance[0].random() < chance[1]:
                    _put_all(content, offset, data)
                continue
            for begin in range(0, len(data), SECTOR):
                if chance[0].random() < chance[1]:
                    _put(content, offset + begin, data[begin : begin + SECTOR])
        return content


def _change(names: dict[str, int], folders: set[str], change: Operation) -> None:
    match change:
        case ("mkdir", folder):
            folders.add(folder)
        case ("create", name, inode):
            names[name] = inode
        case ("rename", old, new):
            if old in names:
                names[new] = names.pop(old)
        case ("remove", name):
            names.pop(name, None)
        case _:
            raise AssertionError(change)


def _put_all(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is not None:
        _put(content, offset, data)
        return
    del content[offset:]
    content.extend(bytes(offset - len(content)))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _error(number: int) -> OSError:
    return OSError(number, errno.errorcode[number])
