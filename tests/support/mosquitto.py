"""A real Mosquitto for tests: loopback, free ports, a temporary folder, killed at the end."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

_HANDED_OUT: set[int] = set()


def free_port() -> int:
    """A TCP port that nobody listens on now, and that this process was not given before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _HANDED_OUT:
            _HANDED_OUT.add(port)
            return port


def mosquitto_binary() -> str:
    """The server; its absence is a failure, not a skip."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert binary is not None, "mosquitto is not installed (apt-get install mosquitto)"
    return binary


class Mosquitto:
    """`with Mosquitto(folder, config, ports) as broker:`; ready when each port accepts a connection."""

    def __init__(
        self, folder: Path, config: str, ports: tuple[int, ...], environment: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.ports = ports
        self._environment = {**os.environ, **(environment or {})}
        self.log_file = folder / "mosquitto.log"
        self.config_file = folder / "mosquitto.conf"
        self.config_file.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def plain(cls, folder: Path, *extra: str, persistence: bool = False) -> Self:
        """One listener without TLS, open to everybody; Nagle on, as a default server has it."""
        port = free_port()
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", *_persistence(folder, persistence), *extra]
        return cls(folder, "\n".join(lines) + "\n", (port,))

    @property
    def port(self) -> int:
        """The first one."""
        return self.ports[0]

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it accepts."""
        assert self._process is None
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [mosquitto_binary(), "-c", str(self.config_file)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 10
        for port in self.ports:
            while not _accepts(port):
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < end, self.log()
                time.sleep(0.01)

    def died(self) -> bool:
        """Whether it was running and was killed by somebody else; it may be started again then."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        return self._process is None

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end; persistence is written."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(10)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """SIGHUP to reload, SIGSTOP to freeze, SIGCONT to thaw."""
        os.kill(self.pid, number)

    def log(self) -> str:
        """What it printed."""
        return self.log_file.read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _persistence(folder: Path, wanted: bool) -> list[str]:  # noqa: FBT001
    if not wanted:
        return ["persistence false"]
    return ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
