"""The image service against a registry that can be made to misbehave, with images small enough for a test."""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import EdgeError
from edge.images.image_store import chain_ids
from edge.podman_host import choose_podman_flags, read_facts
from tests.support.fault_proxy import FaultProxy
from tests.support.image_service import ImageServiceProcess
from tests.support.images import abort
from tests.support.oci_layout import OciLayout, host_architecture, layer
from tests.support.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 60.0
SPAN_SIZE = 128 << 10


@dataclass(frozen=True, slots=True)
class TestImage:
    """An image in the registry, and what its files hold.

    Attributes:
        name: Repository and tag.
        layer_ids: From the lowest on.
        files: Of each layer.
    """

    __test__ = False

    name: str
    layer_ids: tuple[str, ...]
    files: tuple[Mapping[str, bytes], ...]


def content(seed: int, files: int = 24, size: int = 96 << 10) -> dict[str, bytes]:
    """Files whose bytes compress to about a half."""
    noise = random.Random(seed)
    return {
        f"data/{number:02}": b"".join(noise.randbytes(24).hex().encode() for _ in range(size // 48))
        for number in range(files)
    }


def push_image(  # noqa: PLR0913 - what an image may differ in
    registry: Registry,
    repository: str,
    layers: Sequence[Mapping[str, bytes]],
    *,
    index: str = "compact",
    tag: str = "1",
    options: Sequence[str] = (),
) -> TestImage:
    """Push an image of these layers, with an index of small spans and these options, or without one."""
    with tempfile.TemporaryDirectory() as name:
        layout = OciLayout(Path(name) / "layout")
        tars = [layer(files) for files in layers]
        layout.finish(layout.image(tars, {"Cmd": ["/none"]}, host_architecture()), tag=tag)
        layout.push(registry, repository, tag)
    reference = f"{registry.address}/{repository}:{tag}"
    document = registry.get(f"{repository}/manifests/{tag}", "application/vnd.oci.image.manifest.v1+json")
    configuration = registry.get(f"{repository}/blobs/{document['config']['digest']}")
    if index:
        usual = ("--index-version", index, "--span-size", str(SPAN_SIZE), "--min-layer-size", "0")
        push_index(registry, reference, *usual, *options)
    ids = chain_ids(configuration["rootfs"]["diff_ids"])
    return TestImage(f"{repository}:{tag}", tuple(ids), tuple(layers))


def push_index(registry: Registry, reference: str, *options: str) -> None:
    """`edge image index push`."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "registries.conf"
        write_registries(conf, registry.address)
        command = (sys.executable, "-m", "edge", "image", "index", "push", reference, *options)
        environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(conf)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_registries(path: Path, *addresses: str) -> None:
    """A registries.conf that lets these be asked without TLS."""
    path.write_text("".join(f'[[registry]]\nlocation = "{one}"\ninsecure = true\n' for one in addresses))


class Rig:
    """A registry behind a proxy, and a service that knows only the proxy."""

    def __init__(self, folder: Path, registry: Registry, proxy: FaultProxy, arguments: Sequence[str]) -> None:
        self.folder = folder
        self.registry = registry
        self.proxy = proxy
        write_registries(folder / "registries.conf", proxy.address)
        self.service = ImageServiceProcess(folder, folder / "registries.conf", *arguments)
        self._readers: list[subprocess.Popen[bytes]] = []

    def prepare(self, image: TestImage) -> Any:
        """Make it startable; returns its status."""
        return self.service.prepare(f"{self.proxy.address}/{image.name}")

    def start_asking(self, image: TestImage) -> threading.Thread:
        """Ask for it on a thread, whatever comes of it."""

        def ask() -> None:
            with suppress(EdgeError, OSError):
                self.prepare(image)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def path(self, image: TestImage, name: str, number: int = 0) -> Path:
        """Where a file of a layer is seen."""
        return self.service.store / "overlay" / image.layer_ids[number] / "diff" / name

    def start_reading(self, *paths: Path) -> "subprocess.Popen[bytes]":
        """Read files in another process: one that reads its own mount may wait for itself."""
        reader = subprocess.Popen(("cat", *paths), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._readers.append(reader)
        return reader

    def read(self, *paths: Path) -> bytes:
        """Read files whole."""
        output, problem = self.start_reading(*paths).communicate(timeout=PATIENCE_SECONDS)
        assert not problem, problem.decode()
        return output

    def check(self, image: TestImage) -> None:
        """Every byte of every file is what it was."""
        for number, files in enumerate(image.files):
            paths = [self.path(image, name, number) for name in files]
            assert self.read(*paths) == b"".join(files.values())

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.service.log()
            time.sleep(0.02)

    def until_prepared(self, image: TestImage, before: Callable[[], None]) -> None:
        """Ask for it until it is there, as the agent does."""
        before()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self.prepare(image)
            except EdgeError:
                assert time.monotonic() < deadline, self.service.log()
            else:
                return

    def notes(self) -> str:
        """What the service had to say."""
        return "\n".join(note["text"] for note in self.service.ask("notes"))

    def end(self) -> None:
        """End readers, service and mount."""
        self.proxy.heal()
        if any(reader.poll() is None for reader in self._readers):
            abort(self.service.state_dir)
        for reader in self._readers:
            reader.kill()
            reader.communicate()
        self.service.__exit__(None, None, None)


@contextmanager
def rig(folder: Path, registry: Registry, *arguments: str) -> Iterator[Rig]:
    """A rig whose service runs; arguments go to it."""
    with FaultProxy(registry.port) as proxy:
        made = Rig(folder, registry, proxy, arguments)
        try:
            made.service.start()
            yield made
        finally:
            made.end()


def podman_images(store: Path) -> list[str]:
    """The ids of the images that Podman itself finds in a store."""
    # Podman wants short paths.
    with tempfile.TemporaryDirectory(prefix="p-", dir="/tmp") as folder:
        places = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp")
        flags = (*places, *choose_podman_flags(read_facts()), f"--storage-opt=overlay.imagestore={store}")
        command = ("podman", *flags, "images", "--no-trunc", "--format", "json")
        done = subprocess.run(command, capture_output=True, check=False, timeout=PATIENCE_SECONDS)
        for mounted in (f"{folder}/root/overlay", f"{folder}/root"):
            subprocess.run(("umount", "-q", mounted), check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return sorted(one["Id"].removeprefix("sha256:") for one in json.loads(done.stdout))
