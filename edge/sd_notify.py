"""Telling systemd how a service is: it is ready, it is alive, it ends (`sd_notify(3)`, `sd_watchdog_enabled(3)`).

Whoever sends `alive` has just done its work, and sends it from where the work is done: a thread of its own would go on
saying so for a program that hangs.
"""

import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from typing import Final, Self

_SHARE: Final = 3.0
"""Of the watchdog's time; systemd recommends a half, and a slow turn of the loop comes on top."""
_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Who started this program, if it is systemd or speaks like it; otherwise every message goes nowhere.

    Attributes:
        alive_seconds: How often `alive` is to be said at least; None when nobody watches.
    """

    def __init__(self, environment: Mapping[str, str], pid: int) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watched = self._address and environment.get("WATCHDOG_PID", str(pid)) == str(pid)
        microseconds = environment.get("WATCHDOG_USEC", "") if watched else ""
        counts = microseconds.isdecimal() and int(microseconds) > 0
        self.alive_seconds = int(microseconds) / 1e6 / _SHARE if counts else None

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Self:
        """Read what systemd said, and let no child inherit it: crun and conmon speak the same protocol."""
        found = cls(environment, os.getpid())
        for name in _VARIABLES:
            environment.pop(name, None)
        return found

    def ready(self) -> None:
        """Say that what was asked for is there; who is ordered after us may start."""
        self._tell("READY=1")

    def alive(self) -> None:
        """Say that the work goes on; systemd kills and restarts a service that does not for the watchdog's time."""
        if self.alive_seconds is not None:
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the end has begun, and is meant."""
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        # `@` is the abstract name space.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        # Nobody is served by a program that ends because it could not say that it lives.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            sender.sendto(message.encode(), address)
