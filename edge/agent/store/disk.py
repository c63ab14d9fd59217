"""What the outbox asks of a disk: single system calls, so that a test can stand between any two of them."""

import errno
import os
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """A file system, call by call. Every method raises OSError as the kernel does.

    What was written is on the disk when `sync` of the file returned; a name is there when `sync_folder` of its folder
    returned. Before that both may be there, or not, or in part (of written bytes: in pieces of 512).
    """

    def make_folder(self, folder: Path) -> bool:
        """Make the folder in one that is there; True when it was not there."""
        ...

    def names(self, folder: Path) -> list[str]:
        """Return the names in the folder."""
        ...

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """Open a file and return its handle; `create`: for writing, and it must not be there."""
        ...

    def close(self, handle: int) -> None:
        """Give the handle back."""
        ...

    def allocate(self, handle: int, size: int) -> None:
        """Reserve `size` bytes from the beginning, so that writing them needs no space; what is there stays."""
        ...

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        ...

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer at the end of the file."""
        ...

    def sync(self, handle: int) -> None:
        """Put the file's bytes on the disk."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name; a file of that name goes."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...

    def sync_folder(self, folder: Path) -> None:
        """Put a folder's names on the disk."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes may still be allocated on the folder's file system."""
        ...


class RealDisk:
    """The kernel's file systems."""

    def make_folder(self, folder: Path) -> bool:
        """See `Disk`."""
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return False
        return True

    def names(self, folder: Path) -> list[str]:
        """See `Disk`."""
        return os.listdir(folder)  # noqa: PTH208 - names, not paths: a backlog has hundreds of files

    def open(self, path: Path, *, write: bool = False, create: bool = False) -> int:
        """See `Disk`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL if create else os.O_RDWR if write else os.O_RDONLY
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, handle: int) -> None:
        """See `Disk`."""
        os.close(handle)

    def allocate(self, handle: int, size: int) -> None:
        """See `Disk`."""
        os.posix_fallocate(handle, 0, size)

    def write(self, handle: int, data: bytes, offset: int) -> None:
        """See `Disk`."""
        done = os.pwrite(handle, data, offset)
        while done < len(data):
            more = os.pwrite(handle, memoryview(data)[done:], offset + done)
            if not more:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += more

    def read(self, handle: int, size: int, offset: int) -> bytes:
        """See `Disk`."""
        return os.pread(handle, size, offset)

    def sync(self, handle: int) -> None:
        """See `Disk`."""
        os.fdatasync(handle)

    def rename(self, old: Path, new: Path) -> None:
        """See `Disk`."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """See `Disk`."""
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """See `Disk`."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, folder: Path) -> int:
        """See `Disk`."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize


def make_folders(disk: Disk, folder: Path) -> None:
    """Have the folder and those above it, their names on the disk. OSError passes through."""
    try:
        disk.make_folder(folder)
    except FileNotFoundError:
        make_folders(disk, folder.parent)
        disk.make_folder(folder)
    disk.sync_folder(folder.parent)
