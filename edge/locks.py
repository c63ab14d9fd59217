"""A lock on a file that says "somebody works here"; looking whether it is held never takes it.

An open-file-description lock of Linux (fcntl(2), `F_OFD_SETLK`): it goes with the process, however that ends, and can
be asked about. With flock(2) a look is an attempt, and an agent that starts while somebody looks is turned away.
"""

import fcntl
import struct
from typing import IO, Any

# struct flock of a 64-bit Linux: l_type, l_whence, l_start, l_len, l_pid; a length of 0 is the whole file.
_FLOCK = struct.Struct("hhqqi4x")


def take(file: IO[Any] | int) -> bool:
    """Hold `file`, open for writing, until it is closed; false when another one holds it.

    Raises:
        OSError: The file system knows no locks.
    """
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def is_held(file: IO[Any] | int) -> bool:
    """Return whether somebody else holds `file`; nobody who wants it notices that it was asked.

    Raises:
        OSError: The file system knows no locks.
    """
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
