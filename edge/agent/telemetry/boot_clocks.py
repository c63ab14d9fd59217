"""What time it was in each boot of which records may still wait: a small file lets a later boot say it."""

import json
import logging
from pathlib import Path
from typing import Final

from edge.agent.telemetry.ports import WallClock
from edge.errors import EdgeError
from edge.files import write_atomically
from edge.model.telemetry import BootClock

_log = logging.getLogger(__name__)
MOST: Final = 64
"""Boots remembered, the newest."""
STEP_MS: Final = 1000
"""A synchronized clock that is found so far from what was noted was set again: that is noted."""


class BootClocks:
    """Offsets between the wall clock and the monotonic one, by boot. `of` is for one thread.

    Args:
        path: Of the file; one that cannot be read is begun anew.
        boot_id: Of this boot, 32 hexadecimal digits.
        clock: This boot's.
    """

    def __init__(self, path: Path, boot_id: str, clock: WallClock) -> None:
        self._path = path
        self._boot_id = boot_id
        self._clock = clock
        self._known = _read(path)

    def of(self, boot_id: str) -> BootClock:
        """Return what is known of a boot; of this one, what its clock says now."""
        if boot_id != self._boot_id:
            return self._known.get(boot_id, BootClock())
        now = BootClock(self._clock.wall_ms() - int(self._clock.monotonic() * 1000), self._clock.is_synchronized())
        noted = self._known.get(boot_id)
        worse = noted is not None and noted.synchronized and not now.synchronized
        if worse and noted is not None:
            return noted
        if noted is None or now.synchronized != noted.synchronized or _apart(noted, now) > STEP_MS:
            self._note(now)
        return now

    def known(self, boot_id: str) -> BootClock:
        """Return what was noted of a boot; may be called from any thread."""
        return self._known.get(boot_id, BootClock())

    def _note(self, now: BootClock) -> None:
        self._known.pop(self._boot_id, None)
        self._known[self._boot_id] = now
        while len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        document = {boot_id: [clock.offset_ms, clock.synchronized] for boot_id, clock in self._known.items()}
        try:
            write_atomically(self._path, json.dumps(document).encode())
        except EdgeError as error:
            _log.warning("what time it is cannot be noted: %s", error)


def _apart(one: BootClock, other: BootClock) -> int:
    return abs((one.offset_ms or 0) - (other.offset_ms or 0)) if other.synchronized else 0


def _read(path: Path) -> dict[str, BootClock]:
    try:
        document = json.loads(path.read_bytes())
        return {str(boot_id): BootClock(int(offset), bool(good)) for boot_id, (offset, good) in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
