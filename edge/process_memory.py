"""What a process has in its memory stays there: no core dump, and nobody of the same user may look."""

import ctypes
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_to_oneself() -> None:
    """Leave no core dump, and let nobody but root read this process's memory (prctl(2), `PR_SET_DUMPABLE`).

    Counts for this process until it executes another program; its children inherit that they leave no core dump.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
