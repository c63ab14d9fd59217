"""The real agent on a machine of which the environment says what boot it is in and whether its clock is known good.

`EDGE_TEST_BOOT_ID` is the boot's id; the file `EDGE_TEST_CLOCK_GOOD` says "yes" or "no". What the wall clock says is
put into the process by libfaketime (Debian's `faketime`), for OpenSSL and SQLite too.
"""

import argparse
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import SupportsIndex

from edge.agent import app
from edge.agent.adapters.clock import SystemClock
from edge.agent.adapters.host import LinuxHost
from edge.agent.config import load_config
from edge.agent.engine.ports import HostFacts


def _sleep(seconds: float | SupportsIndex) -> None:
    threading.Event().wait(float(seconds))


# Under libfaketime 0.9.10 each `clock_nanosleep` on the monotonic clock fails with EINVAL or never ends, and that is
# what `time.sleep` is made of: steps of the agent would fail that never fail on a device.
time.sleep = _sleep

PROGRAM = ("-m", "tests.support.played_agent")


class WallClock:
    """What an agent's machine takes for the time; may be set while it runs."""

    def __init__(self, folder: Path) -> None:
        self._time = folder / "time"
        self._good = folder / "good"
        self.right()

    @property
    def environment(self) -> Mapping[str, str]:
        """For the agent's process."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._time),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "TZ": "UTC",
            "EDGE_TEST_CLOCK_GOOD": str(self._good),
        }

    def wrong(self, moment: datetime) -> None:
        """It says another time, goes on from there, and nobody has set it."""
        offset = int((moment - datetime.now(UTC)).total_seconds())
        self._good.write_text("no")
        self._put(f"{offset:+d}")

    def right(self) -> None:
        """Somebody sets it."""
        self._put("+0")
        self._good.write_text("yes")

    def _put(self, text: str) -> None:
        # Never half a file: it is read at each look at the clock.
        new = self._time.with_suffix(".new")
        new.write_text(text + "\n")
        new.rename(self._time)


class PlayedClock(SystemClock):
    """As good as the file says."""

    def is_synchronized(self) -> bool:
        good = os.environ.get("EDGE_TEST_CLOCK_GOOD")
        return super().is_synchronized() if good is None else Path(good).read_text() == "yes"


class PlayedHost(LinuxHost):
    """In the boot that is told."""

    def facts(self) -> HostFacts:
        facts = super().facts()
        return dataclasses.replace(facts, boot_id=os.environ.get("EDGE_TEST_BOOT_ID", facts.boot_id))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    logging.basicConfig(level="INFO")
    app.run(load_config(parser.parse_args().config), make_clock=PlayedClock, make_host=PlayedHost)
