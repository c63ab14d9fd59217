"""The machine's clocks."""

import ctypes
import time
from datetime import UTC, datetime
from typing import Final

_STA_UNSYNC: Final = 0x0040
"""linux/timex.h: nobody has set the clock since the boot, or whoever did has lost touch."""
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 256
"""More than sizeof(struct timex) on any Linux; `status` is an int after modes (4), offset, freq, maxerror, esterror."""


class SystemClock:
    """`Clock` fulfilled by the kernel."""

    def now(self) -> str:
        """See `Clock`."""
        return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def monotonic(self) -> float:
        """See `Clock`; the time asleep counts, as it does for whoever waits for the device."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def is_synchronized(self) -> bool:
        """See `Clock`: what adjtimex(2) says, which NTP daemons and a read RTC keep up to date."""
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
        state = ctypes.CDLL(None).adjtimex(buffer)
        long = ctypes.sizeof(ctypes.c_long)
        status = ctypes.c_int.from_buffer(buffer, long + 4 * long).value
        return state not in (-1, _TIME_ERROR) and not status & _STA_UNSYNC
