"""The broker learns of a device that has just been enrolled: its lists are written, and it is told to read them."""

import logging
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from edge.fleet.broker_folder import refresh_access_list
from edge.fleet.enrollments import Enrollment
from edge.fleet.folder import Fleet

_RELOAD_SECONDS: Final = 30.0
_log = logging.getLogger(__name__)


class BrokerLists:
    """Keeps Mosquitto's lists in step with what the controller does.

    Args:
        fleet: Whose.
        reload: Makes Mosquitto read its lists again, without a shell; empty when somebody else does.
        now: Tells the time.
    """

    def __init__(self, fleet: Fleet, reload: Sequence[str], now: Callable[[], datetime]) -> None:
        self._fleet = fleet
        self._reload = reload
        self._now = now
        self._let_in: set[str] = set()

    def let_in(self, enrollment: Enrollment) -> None:
        """Let the broker know a device. Once for each, but again in the next process: this one may die in between.

        Raises:
            StoreError: The lists cannot be written.
        """
        if enrollment.id in self._let_in:
            return
        device = enrollment.device
        if refresh_access_list(self._fleet, self._now()) is None:
            _log.warning("device %s is enrolled; the broker must let it in: edge fleet broker-config DIR", device)
        elif not self._reload:
            _log.warning("device %s is enrolled; Mosquitto lets it in when it has read its lists (SIGHUP)", device)
        elif self._told(device):
            self._let_in.add(enrollment.id)

    def _told(self, device: str) -> bool:
        try:
            subprocess.run(  # noqa: S603 - the operator's own command
                self._reload, stdin=subprocess.DEVNULL, check=True, timeout=_RELOAD_SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            _log.warning("device %s is enrolled, but Mosquitto was not told to read its lists: %s", device, error)
            return False
        return True
