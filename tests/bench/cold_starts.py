"""One cold start of a workload, by Podman alone and through the image service, each on an empty disk."""

import secrets
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.image_service import ImageServiceProcess
from tests.support.podman import PodmanService

READY = {
    "sensor": '"number":1,',
    "numpy-app": '"ready"',
    "node-web": '"ready"',
    "database": "Ready to accept connections",
    "toolchain": '"ready"',
    "small-files": '"ready"',
}
"""What each workload prints when it does its work."""
_PATIENCE_SECONDS = 1800.0
_TCP_SHARE = 1448 / 1514
"""Of a full Ethernet frame, a segment's payload: the most of a link's rate that can be bytes of an image."""


@dataclass(frozen=True, slots=True)
class Lazy:
    """A start through the image service; seconds and bytes.

    Attributes:
        startable: Until a container could be created.
        ready: Until the ready line, from nothing.
        second: The same, of a second container while the image was still incomplete; 0 when it was complete.
        wanted: Compressed bytes of the spans that were read before the ready line.
        before_ready: What the link carried before the ready line.
    """

    startable: float
    ready: float
    second: float
    wanted: int
    before_ready: int


class Place:
    """A Podman on an empty disk, and on request an image service that it uses."""

    def __init__(self, folder: Path, registry: str, *, lazy: bool) -> None:
        self.folder = folder
        self.folder.mkdir()
        store = (folder / "images" / "store",) if lazy else ()
        self.podman = PodmanService(folder, *store)
        self.podman.allow_insecure(registry)
        self.service = ImageServiceProcess(folder, folder / "registries.conf") if lazy else None

    def run(self, image: str, ready: str) -> float:
        """Run a container until it is ready, and return the seconds; it is removed again, which does not count."""
        name = f"bench{secrets.token_hex(4)}"
        limits = self.podman.ulimit_flags()
        command = ("podman", *self.podman.flags, "run", "--name", name, "--network", "none", *limits, image)
        began = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.podman.environment
        ) as process:
            took = _until_ready(process, ready) - began
            self.podman.run_cli("rm", "--force", "--time", "0", name)
            process.kill()
        return took

    def close(self) -> None:
        self.podman.stop()
        if self.service is not None:
            self.service.__exit__(None, None, None)


@contextmanager
def place(folder: Path, registry: str, *, lazy: bool) -> Iterator[Place]:
    """A place that is gone afterwards."""
    made = Place(folder, registry, lazy=lazy)
    if made.service is not None:
        made.service.start()
    made.podman.run_cli("info")  # It makes its store: not what is measured.
    try:
        yield made
    finally:
        made.close()
        _remove(folder)


def _remove(folder: Path) -> None:
    # What the service had begun to unpack may still come to its end.
    deadline = time.monotonic() + 30
    while subprocess.run(("rm", "-rf", folder), check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pulled(folder: Path, reference: str, workload: str) -> float:
    """Seconds from nothing to the ready line by `podman pull && podman run`."""
    with place(folder, reference.partition("/")[0], lazy=False) as here:
        began = time.perf_counter()
        here.podman.run_cli("pull", "--quiet", reference)
        took = time.perf_counter() - began
        return took + here.run(reference, READY[workload])


def lazily(where: Place, reference: str, workload: str, sent_bytes: Callable[[], int]) -> Lazy:
    """Start a workload through the image service, from nothing and once more."""
    service = where.service
    assert service is not None
    sent = sent_bytes()
    began = time.perf_counter()
    image = service.prepare(reference)
    startable = time.perf_counter() - began
    ready = startable + where.run(image["imageId"], READY[workload])
    carried = sent_bytes() - sent
    image = service.image(image["imageId"])
    second = where.run(image["imageId"], READY[workload])
    whole = service.image(image["imageId"])["state"] == "MATERIALIZED"
    return Lazy(startable, ready, 0.0 if whole else second, image["wanted"], carried)


def limit_seconds(wanted: int, megabits: float, warm: float) -> float:
    """What a cold start cannot beat: the spans it reads through the link, and its warm start."""
    return wanted / (megabits * 125_000 * _TCP_SHARE) + warm


def _until_ready(process: "subprocess.Popen[bytes]", ready: str) -> float:
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + _PATIENCE_SECONDS
    seen = b""
    while True:
        found, _, _ = select.select([process.stdout], [], [], deadline - time.monotonic())
        assert found, f"not ready in {_PATIENCE_SECONDS:g} s: {seen[-2000:]!r}"
        piece = process.stdout.read1(65536)  # type: ignore[attr-defined]
        assert piece, f"ended before it was ready: {seen[-2000:]!r} {process.stderr.read()[-2000:]!r}"
        seen += piece
        if ready.encode() in seen:
            return time.perf_counter()
