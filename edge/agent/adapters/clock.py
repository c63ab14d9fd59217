"""The machine's clocks."""

import ctypes
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from edge.agent.engine.ports import Clock

_STA_UNSYNC: Final = 0x0040
"""linux/timex.h: nobody has set the clock since the boot, or whoever did has lost touch."""
_TIME_ERROR: Final = 5
_TIMEX_BYTES: Final = 256
"""More than sizeof(struct timex) on any Linux; `status` is an int after modes (4), offset, freq, maxerror, esterror."""


_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SystemClock:
    """`Clock` fulfilled by the kernel."""

    def now(self) -> str:
        """See `Clock`."""
        return _text(datetime.now(UTC))

    def wall_ms(self) -> int:
        """See `telemetry.ports.WallClock`."""
        return time.time_ns() // 1_000_000

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


class FlooredClock:
    """A clock that does not go behind what it is known to have been.

    A device without an RTC begins at 1970, or where a file left it. Until somebody sets the clock, time goes on from
    the floor; a clock that is known good is believed whatever the floor says.

    Args:
        clock: The machine's.
        floor: RFC 3339, the latest time known to have passed; empty when none is.
    """

    def __init__(self, clock: Clock, floor: str) -> None:
        self._clock = clock
        try:
            known = datetime.fromisoformat(floor) if floor else _NEVER
        except ValueError:
            known = _NEVER
        # One value: the broker's thread reads it as well.
        self._since = (known, clock.monotonic())

    def now(self) -> str:
        """See `Clock`."""
        told = self._clock.now()
        least = self.least()
        return told if least is None or datetime.fromisoformat(told) >= least else _text(least)

    def least(self) -> datetime | None:
        """Return the latest time known to have passed, 1970 when none is, or None while the clock is known good."""
        if self._clock.is_synchronized():
            return None
        return self._passed()

    def raise_to(self, moment: str) -> None:
        """Let a time (RFC 3339) count as passed, unless a later one does already."""
        floor = datetime.fromisoformat(moment)
        if floor > self._passed():
            self._since = (floor, self._clock.monotonic())

    def _passed(self) -> datetime:
        floor, begun = self._since
        return floor + timedelta(seconds=self._clock.monotonic() - begun)

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._clock.monotonic()

    def is_synchronized(self) -> bool:
        """See `Clock`."""
        return self._clock.is_synchronized()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
