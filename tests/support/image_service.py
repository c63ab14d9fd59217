"""A real image service, `edge images serve`, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.errors import NotFoundError
from edge.image_service import ask
from edge.images.oci.documents import host_architecture
from tests.support.images import unmount_images

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 30.0


class ImageServiceProcess:
    """`with ImageServiceProcess(folder, registries_conf) as images:`; its mount is ended with it."""

    def __init__(self, folder: Path, registries: Path, *arguments: str) -> None:
        self.state_dir = folder / "images"
        self.store = self.state_dir / "store"
        self.socket = folder / "images.sock"
        self._log = folder / "images.log"
        self._arguments = arguments
        self._environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(registries)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running service."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command(), cwd=ROOT, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self.ask("list")
            except NotFoundError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.01)
            else:
                return

    def run_to_its_end(self) -> tuple[int, str]:
        """Start it where it must fail; returns its exit code and what it printed."""
        done = subprocess.run(
            self._command(), cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False,
            timeout=_PATIENCE_SECONDS,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def _command(self) -> tuple[str, ...]:
        places = ("--state-dir", str(self.state_dir), "--socket", str(self.socket))
        return (sys.executable, "-m", "edge", "images", "serve", *places, *self._arguments)

    def kill(self) -> None:
        """kill -9; the mount stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end; the mount stays."""
        self._end(signal.SIGTERM)

    def log(self) -> str:
        """What it printed."""
        return self._log.read_text(errors="replace")

    def ask(self, op: str, **arguments: Any) -> Any:
        """Ask its API."""
        return ask(self.socket, op=op, **arguments)

    def prepare(self, reference: str) -> Any:
        """Make an image startable; returns its status."""
        return self.ask("prepare", image=reference, architecture=host_architecture())

    def image(self, image_id: str) -> Any:
        """An image's status now."""
        return next(one for one in self.ask("list") if one["imageId"] == image_id)

    def wait_for(self, image_id: str, state: str, seconds: float = _PATIENCE_SECONDS, *, or_later: str = "") -> Any:
        """Wait until an image has come so far, and return its status."""
        deadline = time.monotonic() + seconds
        while (found := self.image(image_id))["state"] not in (state, or_later):
            assert time.monotonic() < deadline, f"{found}\n{self.log()}"
            time.sleep(0.02)
        return found

    def wait_for_bytes(self, image_id: str, count: int, seconds: float = 600) -> None:
        """Wait until so much of an image has arrived."""
        deadline = time.monotonic() + seconds
        while self.image(image_id)["here"] < count:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_PATIENCE_SECONDS)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            unmount_images(self.state_dir)
