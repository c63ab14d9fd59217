"""Giving memory back in times of quiet: what a burst of work left behind, and library text nobody executes just now.

Clean pages of mapped files come back from the page cache at a touch (a minor fault); on a device with 1 GB it is
better that somebody else has the memory meanwhile. Measured on this agent: see docs/architecture.md.
"""

import ctypes
import gc
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_log = logging.getLogger(__name__)

_DONTNEED: Final = 4
"""MADV_DONTNEED, linux/mman-common.h."""
_MAPPING: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-[-x]p \S+ \S+ [1-9]\d*\s+/")
"""A private, read-only mapping of a file: its pages cannot be dirty unless the loader relocated them."""


_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
"""mallopt(3)."""
_LARGE: Final = 256 * 1024
_LEAST_SPARE, _MOST_SPARE = 16 << 20, 96 << 20


def stay_lean() -> None:
    """Let large blocks go back to the kernel when they are freed, and many threads share few arenas. Call it first."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_ARENA_MAX, 2)
    except AttributeError:
        _log.debug("this C library has no mallopt")


def spare_bytes() -> int:
    """Return what a cache may take for a while: 3 % of what is available, from 16 to 96 MiB."""
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(meminfo.partition("MemAvailable:")[2].split()[0]) << 10
    except (OSError, ValueError, IndexError):
        return _LEAST_SPARE
    return max(_LEAST_SPARE, min(_MOST_SPARE, available // 32))


def release() -> None:
    """Return what can be returned to the kernel; everything goes on as before."""
    gc.collect()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/proc/self/smaps").open(encoding="utf-8") as smaps:
            for start, end in _clean_mappings(smaps):
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED)
        libc.malloc_trim(0)
    except (OSError, AttributeError) as error:
        _log.debug("memory is not given back: %s", error)


def _clean_mappings(smaps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield `(start, end)` of mappings without any anonymous page: dropping one of those would lose its content."""
    current: tuple[int, int] | None = None
    for line in smaps:
        match = _MAPPING.match(line)
        if match:
            current = (int(match[1], 16), int(match[2], 16))
        elif "-" in line.split(" ", 1)[0]:
            current = None
        elif current is not None and line.startswith("Anonymous:"):
            if line.split()[1] == "0":
                yield current
            current = None
