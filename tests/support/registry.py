"""A real docker-registry for tests: loopback, a free port, a temporary folder, killed at the end."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.mosquitto import free_port

_PATIENCE_SECONDS = 10.0


class Registry:
    """`with Registry(folder) as registry:`; ready when its API answers. What was pushed outlives `kill` and `stop`."""

    def __init__(self, folder: Path, port: int = 0, host: str = "127.0.0.1", inside: Sequence[str] = ()) -> None:
        """Prepare it; `inside` is a command that runs others, in a network namespace for example."""
        folder.mkdir(parents=True, exist_ok=True)
        self._host, self._inside = host, inside
        self.port = port or free_port()
        self.log_file = folder / "registry.log"
        self.store = folder / "store"
        self._config = folder / "registry.json"  # JSON is YAML.
        self._config.write_text(json.dumps(_config(self.store, self.address)))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, the first part of its images' references."""
        return f"{self._host}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None
        binary = shutil.which("docker-registry")
        assert binary is not None, "docker-registry is not installed (apt-get install docker-registry)"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._inside, binary, "serve", str(self._config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            self._process.wait(_PATIENCE_SECONDS)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP to freeze, SIGCONT to thaw."""
        os.kill(self.pid, number)

    def get(self, path: str, accept: str = "*/*") -> Any:
        """The JSON document at `/v2/<path>`."""
        request = urllib.request.Request(f"http://{self.address}/v2/{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def log(self) -> str:
        """What it printed: each request among other things."""
        return self.log_file.read_text(errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            return bool(self.get("") == {})
        except OSError:
            return False


def _config(store: Path, address: str) -> dict[str, object]:
    """https://distribution.github.io/distribution/about/configuration/."""
    return {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(store)}, "delete": {"enabled": True}},
        "http": {"addr": address},
    }
