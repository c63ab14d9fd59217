"""`edge agent enroll`, killed by SIGKILL at its N-th step for every N, each time on a new device, and run once more.

A step is a name that comes, goes or changes on the disk, a connection, and whatever passes between the command and its
connection. Run as a program with a JSON object: `arguments` (of the command, but the device's), `folder`. Prints a line
of JSON for each N: `step`, `killed`, `again` (the second run's exit code), `files`.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

from edge.cli import main
from edge.cli.agent_enroll import run as _loaded  # noqa: F401 - loaded before the first fork
from edge.mqtt.broker import BrokerEvent, BrokerSettings, Publication, Will
from edge.mqtt.paho_broker import PahoBroker

_STEPS: Final = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "socket.connect")
MOST: Final = 60


class Countdown:
    """Kills the process at the last of so many steps."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if event in _STEPS:
            self.step()


class SteppingBroker(PahoBroker):
    """Every word that passes is a step."""

    def __init__(self, settings: BrokerSettings, step: Callable[[], None]) -> None:
        super().__init__(settings)
        self._step = step

    def start(self, on_event: Callable[[BrokerEvent], None], will: Will | None = None) -> None:
        def hear(event: BrokerEvent) -> None:
            self._step()
            on_event(event)

        super().start(hear, will)

    def publish(self, publication: Publication) -> bool:
        self._step()
        return super().publish(publication)


def _forked(arguments: list[str], steps: int) -> int:
    """Run the command in a process of its own; returns its exit code, negative for a signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    countdown = Countdown(steps)
    sys.addaudithook(countdown.hear)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # noqa: PTH123
        os._exit(main(arguments, brokers=lambda settings: SteppingBroker(settings, countdown.step)))


def _all(arguments: list[str], folder: Path) -> None:
    for step in range(1, MOST):
        place = folder / f"pi-{step}"
        words = [*arguments, "--device", place.name, str(place)]
        killed = _forked(words, step) == -signal.SIGKILL
        told = {"step": step, "killed": killed, "again": _forked(words, 0)}
        sys.stdout.write(json.dumps(told | {"files": sorted(path.name for path in place.iterdir())}) + "\n")
        sys.stdout.flush()
        if not killed:
            return


if __name__ == "__main__":
    _given = json.loads(sys.argv[1])
    _all(_given["arguments"], Path(_given["folder"]))
