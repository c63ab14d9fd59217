"""Mounting and unmounting a FUSE file system with nothing but system calls."""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from edge.errors import RefusedError, StoreError

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOATIME: Final = 1024
_MNT_DETACH: Final = 2
"""linux/mount.h, linux/fs.h."""
READ_AHEAD_KIB: Final = 1024
LAZY_READ_AHEAD_KIB: Final = 32
"""Where bytes are fetched, each that is read ahead in vain costs a container time (128 KiB is the kernel's default).

What is read ahead is recorded as read, too: a start of `numpy-app` reads 27.8 MB with 128 KiB, 24.4 with 64, 21.8 with
32.
"""
_libc = ctypes.CDLL(None, use_errno=True)


def mount(target: Path, name: str) -> int:
    """Mount a read-only file system on `target` and return the descriptor the kernel is answered on.

    Set-user-id bits and device nodes have no effect through the mount itself; an overlay above it has flags of its own.

    Args:
        target: A directory.
        name: What `mount` shows as the source.

    Raises:
        RefusedError: Not permitted here.
        StoreError: There is no FUSE, or no such directory.
    """
    try:
        descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(
            f"cannot open /dev/fuse: {error.strerror}", hint="Load the kernel module: modprobe fuse."
        ) from error
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576"
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    if _libc.mount(name.encode(), os.fsencode(target), f"fuse.{name}".encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        message = f"cannot mount on {target}: {os.strerror(number)}"
        if number in (errno.EPERM, errno.EACCES):
            raise RefusedError(message, hint="The image service must run as root (CAP_SYS_ADMIN).")
        raise StoreError(message)
    return descriptor


def unmount(target: Path) -> None:
    """Take the mount away from the tree; who still uses it keeps it. Harmless where nothing is mounted.

    Raises:
        StoreError: It cannot be unmounted.
    """
    if _libc.umount2(os.fsencode(target), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOENT):
            raise StoreError(f"cannot unmount {target}: {os.strerror(number)}")


def unmount_idle(target: Path) -> None:
    """Unmount, unless somebody uses the mount.

    Raises:
        RefusedError: Somebody does.
        StoreError: It cannot be unmounted.
    """
    if _libc.umount2(os.fsencode(target), 0) != 0:
        number = ctypes.get_errno()
        if number == errno.EBUSY:
            raise RefusedError(f"containers use the images in {target}", hint="Stop them first.")
        if number not in (errno.EINVAL, errno.ENOENT):
            raise StoreError(f"cannot unmount {target}: {os.strerror(number)}")


def is_mounted(target: Path) -> bool:
    """Say whether a FUSE file system is mounted on `target`, alive or dead."""
    _, kind = _mounted_on(target)
    return kind.startswith(b"fuse.")


def read_ahead(target: Path, kib: int = READ_AHEAD_KIB) -> None:
    """Let the kernel read so much at once from the file system mounted on `target`.

    The mount itself is asked nothing: a server that waits for its own answer when it is killed cannot end. Its session
    must be agreed on; before, the kernel forgets it. A host that does not allow it stays as it is.
    """
    device, _ = _mounted_on(target)
    setting = Path(f"/sys/class/bdi/{device.decode()}/read_ahead_kb")
    try:
        setting.write_text(f"{kib}\n")
    except OSError:
        return


def _mounted_on(target: Path) -> tuple[bytes, bytes]:
    """Device (`major:minor`) and type of what is mounted, empty where nothing is; proc(5), `mountinfo`."""
    # The last name is not resolved: to look at a mount that nobody answers for would hang.
    wanted = os.path.realpath(os.fsencode(target.parent)) + b"/" + os.fsencode(target.name)
    device, kind = b"", b""
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        if _unescape(fields[4]) == wanted:
            # The last one lies on top.
            device, kind = fields[2], fields[fields.index(b"-") + 1]
    return device, kind


def _unescape(path: bytes) -> bytes:
    for code in (b" ", b"\t", b"\n", b"\\"):
        path = path.replace(b"\\%03o" % code[0], code)
    return path
