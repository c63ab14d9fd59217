"""Files that are either the old one or the new one, never half of one."""

import errno
import os
import secrets
from pathlib import Path

from edge.errors import StoreError, StoreFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` at `path`, so that a reader, a crash or a power cut sees the former file or this one, whole.

    The mode is set exactly, whatever the umask, and before the first byte is written. A symbolic link at `path` is
    replaced, not followed. When this returns, the file and its name are on the disk.

    Raises:
        StoreFullError: The disk is full or read-only; the former file is untouched.
        StoreError: It cannot be written for another reason; the former file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        _write_new(temporary, data, mode)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise store_error(f"cannot write {path}", error) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk: without it a renamed file may lose its name in a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder and those above it; when this returns, each new name is on the disk.

    Raises:
        OSError: It cannot be made.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent, mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync_folder(path.parent)


def store_error(message: str, error: OSError) -> StoreError:
    """Say what a failed file operation means: full and read-only disks may recover, everything else does not."""
    text = f"{message}: {error.strerror or error}"
    if error.errno in _FULL:
        return StoreFullError(text, hint="Free some space or make the file system writable, then try again.")
    return StoreError(text)
