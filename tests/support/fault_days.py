"""What happens to a device in bad days: each fault of the world, drawn at random, healed again, and accounted for."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.support.played_agent import PROGRAM, WallClock
from tests.support.podman import PodmanService
from tests.support.rebooting import reboot
from tests.support.stack import Stack

_LONGEST_OUTAGE_SECONDS: Final = 12.0
FLOOD: Final = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo flood $i; done"
"""Of the task `flood`, which must be registered."""
_WRONG = (
    datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 2, tzinfo=UTC),
    datetime(2099, 12, 31, 23, 59, 55, tzinfo=UTC),
)


class BadDays:
    """One device, and what may happen to it.

    Attributes:
        killed: Names of containers that were killed here: they alone may be replaced.
    """

    def __init__(self, stack: Stack, podman: PodmanService, disk: Path, chance: random.Random) -> None:
        self._stack = stack
        self._podman = podman
        self._disk = disk
        self._chance = chance
        self._clock = WallClock(stack.folder)
        self._boots = 0
        self.killed: set[str] = set()
        self.faults: tuple[Callable[[], None], ...] = (
            self.broker_away,
            self.link_flaps,
            self.broker_answers_nothing,
            self.agent_killed,
            self.agent_stopped,
            self.podman_killed,
            self.agent_and_podman_killed,
            self.container_killed,
            self.clock_steps,
            self.clock_set,
            self.disk_full,
            self.log_flood,
            self.reboot_without_link,
        )

    def start_agent(self) -> None:
        """In this boot, by this clock."""
        environment = {**self._clock.environment, "EDGE_TEST_BOOT_ID": self._boot}
        self._stack.start_agent(program=PROGRAM, environment=environment)

    @property
    def _boot(self) -> str:
        return f"{self._boots:032x}"

    def _for_a_while(self, most: float = _LONGEST_OUTAGE_SECONDS) -> None:
        time.sleep(self._chance.uniform(0, most))

    def broker_away(self) -> None:
        self._stack.broker.stop()
        self._for_a_while()
        self._stack.broker.start()

    def link_flaps(self) -> None:
        for _ in range(self._chance.randint(2, 6)):
            self._stack.broker.stop()
            self._for_a_while(0.5)
            self._stack.broker.start()
            self._for_a_while(1.5)

    def broker_answers_nothing(self) -> None:
        self._stack.broker.signal(signal.SIGSTOP)
        self._for_a_while()
        self._stack.broker.signal(signal.SIGCONT)

    def agent_killed(self) -> None:
        self._stack.kill_agent()
        self._for_a_while(2)
        self.start_agent()

    def agent_stopped(self) -> None:
        self._stack.stop_agent()
        self.start_agent()

    def podman_killed(self) -> None:
        self._podman.kill()
        self._for_a_while(3)
        self._podman.start()

    def agent_and_podman_killed(self) -> None:
        self._stack.kill_agent()
        self._podman.kill()
        self._podman.start()
        self.start_agent()

    def container_killed(self) -> None:
        running = self._stack.running()
        if running:
            name = self._chance.choice(sorted(running))
            self.killed.add(name)
            self._podman.run_cli("kill", name, check=False)

    def clock_steps(self) -> None:
        self._clock.wrong(self._chance.choice(_WRONG))

    def clock_set(self) -> None:
        self._clock.right()

    def disk_full(self) -> None:
        filling = self._disk / "filling"
        with filling.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        self._for_a_while(4)
        filling.unlink()

    def log_flood(self) -> None:
        self._stack.edge("task", "run", "flood", "--no-wait", expect=None)

    def reboot_without_link(self) -> None:
        # In order: what a killed broker had acknowledged and not handed on is its loss.
        self._stack.broker.stop()
        self._boots += 1
        reboot(self._stack, self._podman, self._boot, self._clock.environment)
        self._for_a_while(5)
        self._stack.broker.start()

    def heal(self) -> None:
        """Nothing happens any more."""
        self._clock.right()
