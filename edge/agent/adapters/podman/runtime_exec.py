"""Health checks inside a container, by the OCI runtime itself.

Podman's exec writes its database several times for each command, needs its service awake, and up to 5.4 does not end a
check that hangs. `runc exec` and `crun exec` do the same work (the container's user, environment, capabilities and
seccomp profile come from its own configuration) as a child of ours, which can be waited for and killed.
"""

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.errors import EngineError, NoSuchContainerError

_KEPT: Final = 4096
_KNOWN: Final = 256
_ROUNDS: Final = 20
_NOT_THERE: Final = ("does not exist", "not running", "is not in running state", "stopped container", "no such process")
"""What runc and crun say of a container that does not run; anything else is the command's own failure."""


class RuntimeExec:
    """Runs commands in containers; usable from any thread.

    Args:
        runtime_of: Asks Podman for the name or path of the runtime that a container was made with.
    """

    def __init__(self, runtime_of: Callable[[str], str]) -> None:
        self._runtime_of = runtime_of
        self._known: dict[str, str] = {}

    def run(self, runtime_id: str, command: Sequence[str], timeout_seconds: float) -> bool:
        """Say whether the command ended with 0 in time; see `ContainerEngine.run_check`."""
        runtime = self._path(runtime_id)
        try:
            process = subprocess.Popen(  # noqa: S603 - inside the container; its signed definition says what
                (runtime, "exec", runtime_id, *command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(
                f"cannot run {runtime}: {error.strerror}", reason="CannotStartContainerExecError"
            ) from error
        with process:
            told = _wait(process, timeout_seconds)
            if told is None:
                _kill_all(process.pid)
                process.kill()
                return False
        text = told.decode(errors="replace").lower()
        if process.returncode and any(sign in text for sign in _NOT_THERE):
            raise NoSuchContainerError(f"container {runtime_id[:12]} does not run")
        return process.returncode == 0

    def _path(self, runtime_id: str) -> str:
        known = self._known.get(runtime_id)
        if known is None:
            name = self._runtime_of(runtime_id)
            known = name if name.startswith("/") else shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
            if known is None:
                raise EngineError(f"the OCI runtime {name} is not there", reason="CannotStartContainerExecError")
            while len(self._known) >= _KNOWN:
                self._known.pop(next(iter(self._known)), None)
            self._known[runtime_id] = known
        return known


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> bytes | None:
    """Return the beginning of what it wrote to stderr, or None when it has not ended in time."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    deadline, told = time.monotonic() + seconds, b""
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stderr, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
                if process.stderr in ready:
                    # Read on, so that nobody who writes much waits for us; kept is only the beginning.
                    data = os.read(process.stderr.fileno(), 65536)
                    told = (told + data)[:_KEPT]
                    if not data:
                        selector.unregister(process.stderr)
                elif ended in ready:
                    return told
                if time.monotonic() >= deadline:
                    return None
    finally:
        os.close(ended)


def _kill_all(pid: int) -> None:
    """Kill everything below a process; again until nothing new has come."""
    for _ in range(_ROUNDS):
        below = _below(pid)
        if not below:
            return
        for child in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def _below(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in (Path("/proc") / str(pid) / "task").iterdir():
            for child in (thread / "children").read_text().split():
                found.extend((int(child), *_below(int(child))))
    return [child for child in found if _is_alive(child)]


def _is_alive(pid: int) -> bool:
    try:
        # The state follows the name, which may itself hold parentheses.
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
