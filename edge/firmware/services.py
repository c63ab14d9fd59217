"""Letting the agent and the image service start anew, whoever supervises them."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge.errors import TransientError

UNITS: Final = ("edge-images.service", "edge-agent.service")
_STOP_SECONDS: Final = 25.0
"""Longer than the agent's own patience: it commits what Podman is about to answer."""


def restart_services(state_dir: Path, agent_pid: int | None) -> None:
    """Restart both: by systemd where it runs them, else by ending them, for `edge up` to start them again.

    Containers are not touched: they are conmon's, not the agent's.

    Raises:
        TransientError: systemd does not do it.
    """
    if systemd_runs_agent():
        for unit in UNITS:
            # A crash loop may have used up the starts systemd allows.
            _systemctl("reset-failed", unit)
            verb = "restart" if unit == UNITS[-1] else "try-restart"
            if _systemctl(verb, "--no-block", unit).returncode != 0:
                raise TransientError(f"systemctl {verb} {unit} failed")
        return
    images = _pid_in(state_dir / "run" / "images.pid", ("images", "serve"))
    for pid in (images, agent_pid):
        if pid is not None:
            _end(pid)


def systemd_runs_agent() -> bool:
    """Return whether the agent is a unit of systemd here."""
    if not Path("/run/systemd/system").is_dir():
        return False
    shown = _systemctl("show", "--property=ActiveState,UnitFileState", UNITS[-1]).stdout
    return "UnitFileState=enabled" in shown or "ActiveState=active" in shown or "ActiveState=activating" in shown


def _systemctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - fixed words
        ("systemctl", *arguments),  # noqa: S607 - wherever the host has it
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _pid_in(path: Path, words: Sequence[str]) -> int | None:
    """The process a supervisor noted, if it is still the one it was."""
    with suppress(OSError, ValueError):
        pid = int(path.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if all(word.encode() in command for word in words):
            return pid
    return None


def _end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        end = time.monotonic() + _STOP_SECONDS
        while _runs(pidfd):
            if time.monotonic() > end:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return
            time.sleep(0.05)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _runs(pidfd: int) -> bool:
    import select  # noqa: PLC0415 - only here

    return not select.select([pidfd], [], [], 0)[0]
