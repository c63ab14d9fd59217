"""The kernel's FUSE protocol, as far as a read-only file system needs it.

Source of layouts and numbers: linux/fuse.h (uapi) of Linux 6.12, protocol 7.41. Native byte order.
"""

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 41
"""The newest minor version whose layouts are used; an older kernel answers with its own."""
MINIMUM_MINOR: Final = 31
"""Linux 5.4; older ones are not supported."""

ROOT: Final = 1

IN_HEADER: Final = Struct("=IIQQIIIHH")
"""len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""
OUT_HEADER: Final = Struct("=IiQ")
"""len, error (negative errno), unique; a notification has unique 0 and its code in error."""
INIT_IN: Final = Struct("=IIII")
"""major, minor, max_readahead, flags; from minor 36 on `flags2` follows."""
INIT_FLAGS2: Final = Struct("=I")
INIT_OUT: Final = Struct("=IIIIHHIIHHII24x")
"""major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages,
map_alignment, flags2, max_stack_depth."""
ATTR: Final = Struct("=QQQQQQIIIIIIIIII")
"""ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink, uid, gid, rdev, blksize, flags."""
ENTRY_OUT: Final = Struct("=QQQQII")
"""nodeid, generation, entry_valid, attr_valid, their nanoseconds; an `ATTR` follows."""
ATTR_OUT: Final = Struct("=QII")
"""attr_valid, its nanoseconds, padding; an `ATTR` follows."""
READ_IN: Final = Struct("=QQIIQII")
"""fh, offset, size, read_flags, lock_owner, flags, padding; READDIR and READDIRPLUS have the same."""
GETXATTR_IN: Final = Struct("=II")
"""size, padding; for GETXATTR the name follows."""
GETXATTR_OUT: Final = Struct("=II")
DIRENT: Final = Struct("=QQII")
"""ino, off, namelen, type; the name follows, padded to 8 bytes."""
STATFS_OUT: Final = Struct("=QQQQQIIII24x")
"""blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding."""
INTERRUPT_IN: Final = Struct("=Q")

UNIQUE_RESEND: Final = 1 << 63
"""Set in the `unique` of a request that the kernel sends again after `NotifyCode.RESEND`."""


class Opcode(IntEnum):
    """Requests a read-only file system is asked."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    READDIRPLUS = 44


class InitFlag(IntFlag):
    """Bits of INIT's `flags`, and from bit 32 on of `flags2`."""

    ASYNC_READ = 1 << 0
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    INIT_EXT = 1 << 30
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40


class NotifyCode(IntEnum):
    """Messages to the kernel that answer nothing."""

    RESEND = 7


WANTED: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.AUTO_INVAL_DATA
    | InitFlag.DO_READDIRPLUS
    | InitFlag.NO_OPEN_SUPPORT
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.NO_OPENDIR_SUPPORT
    | InitFlag.INIT_EXT
    | InitFlag.HAS_RESEND
    | InitFlag.ALLOW_IDMAP
)


def padded(size: int) -> int:
    """Return `size` rounded up to the 8 bytes directory entries are aligned to."""
    return (size + 7) & ~7
