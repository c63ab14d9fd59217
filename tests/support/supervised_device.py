"""A device whose agent is started again whenever it ends, as `current` of a folder of versions says.

By the supervisor of `edge up`, without the image service and Podman, which a `Stack` has already.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.stack import Stack

_SUPERVISE = """
import os, sys
from pathlib import Path
from edge.supervisor import Backoff, Child, Supervisor
base, config, run_dir = sys.argv[1:]
agent = Child("agent", (f"{base}/current/bin/edge", "agent", "run", "--config", config), dict(os.environ))
supervisor = Supervisor((agent,), Path(run_dir), lambda line: print(line, flush=True), backoff=Backoff(0.25, 2.0))
supervisor.run()
"""


class SupervisedDevice:
    """`stack`'s device; its log is the stack's."""

    def __init__(self, stack: Stack, base: Path) -> None:
        self.stack = stack
        self.base = base
        self.config = stack.device / "agent.toml"
        # Not of this tests' own virtual environment, and not as a service of systemd.
        self._environment = {name: value for name, value in os.environ.items() if name != "INVOCATION_ID"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (
            sys.executable,
            "-c",
            _SUPERVISE,
            str(self.base),
            str(self.config),
            str(self.stack.state_dir / "run"),
        )
        with self.stack.agent_log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )

    def kill(self) -> None:
        """As a power cut has it: supervisor and agent at once, by SIGKILL; containers are left to the caller."""
        if self._process is None:
            return
        pid_file = self.stack.state_dir / "run" / "agent.pid"
        pids = [self._process.pid]
        if pid_file.exists():
            pids.append(int(pid_file.read_text()))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()
        self._process = None

    def firmware(self, *arguments: str, expect: int = 0, program: str = "current") -> str:
        """Run `edge firmware …` of the device itself."""
        done = subprocess.run(
            (str(self.base / program / "bin" / "edge"), "firmware", *arguments, "--config", str(self.config)),
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == expect, (
            f"{arguments} -> {done.returncode}\n{done.stdout}{done.stderr}{self.stack.log()}"
        )
        return done.stdout + done.stderr

    def firmware_status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.firmware("status", "--output", "json"))
        return status


@contextmanager
def supervised_device(stack: Stack, base: Path) -> Iterator[SupervisedDevice]:
    """Put it in the place of the stack's own agent."""
    stack.kill_agent()
    device = SupervisedDevice(stack, base)
    device.start()
    try:
        stack.wait_connected()
        yield device
    finally:
        device.kill()
