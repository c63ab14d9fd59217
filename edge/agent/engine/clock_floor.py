"""The latest time known to have passed, kept in the store: what a device without an RTC begins with."""

from collections.abc import Callable
from typing import Final

from edge.agent.engine.ports import Clock
from edge.agent.store.state import Change

CLOCK_FLOOR: Final = "clock_floor"
"""The store's key of it."""
FLOOR_SECONDS: Final = 3600.0
"""How old it may become; it is written along with other things, and by itself once an hour."""


class ClockFloor:
    """Only the engine's thread touches it.

    Args:
        clock: The device's.
        raise_to: Tells the clock that a time (RFC 3339) has passed; a clock in doubt goes on from there.
    """

    def __init__(self, clock: Clock, raise_to: Callable[[str], None]) -> None:
        self._clock = clock
        self._raise_to = raise_to
        self._noted_at = clock.monotonic()

    def note(self, change: Change, seconds: float = FLOOR_SECONDS) -> None:
        """Note what time it is, if the last note is older and the clock is known good: a wrong one is no floor."""
        now = self._clock.monotonic()
        if now - self._noted_at >= seconds and self._clock.is_synchronized():
            self._noted_at = now
            change.meta[CLOCK_FLOOR] = self._clock.now().encode()

    def learned(self, time: str, change: Change) -> None:
        """Somebody who is believed said what time it is. A clock that is known good asks nobody."""
        if self._clock.is_synchronized():
            return
        self._raise_to(time)
        change.meta[CLOCK_FLOOR] = self._clock.now().encode()
