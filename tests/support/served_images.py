"""The image service as it is run, behind an address of the test's choice, and images whose index a test may spoil.

Files are read in other processes: whoever reads a mount that nobody answers for waits, and a test must not.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import NotFoundError
from edge.image_service import ask
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor, digest_of, host_architecture
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.oci.registries import Registries
from edge.images.soci import manifests
from edge.images.soci.builder import build_layer_index
from edge.images.soci.values import Compression, Ztoc
from edge.images.soci.ztoc import write_ztoc
from tests.support.images import unmount_images
from tests.support.oci_layout import CONFIG, LAYER, MANIFEST
from tests.support.registry import Registry

PATIENCE_SECONDS = 60.0
SPAN_SIZE = 128 << 10
_ROOT = Path(__file__).resolve().parents[2]
_CONNECTIONS = Path("/sys/fs/fuse/connections")


@dataclass(frozen=True, slots=True)
class PushedImage:
    """An image of one layer.

    Attributes:
        name: Repository and tag.
        layer_id: Its only layer's.
        size: Bytes of the layer in the registry.
    """

    name: str
    layer_id: str
    size: int


class ServedImages:
    """`edge images serve` with a state directory in `folder`, which knows registries only at `address`."""

    def __init__(self, folder: Path, address: str, *arguments: str) -> None:
        self.address = address
        self.state_dir = folder / "images"
        self.store = self.state_dir / "store"
        self._socket = folder / "images.sock"
        self._log = folder / "images.log"
        conf = _write_registries(folder / "registries.conf", address)
        self._environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(conf)}
        places = ("--state-dir", str(self.state_dir), "--socket", str(self._socket))
        self._command = (sys.executable, "-m", "edge", "images", "serve", *places, *arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """Of the running service."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=_ROOT, env=self._environment, stdout=log, stderr=log)
        self.until(self._answers)

    def kill(self) -> None:
        """kill -9; the mount stays, and whoever reads waits."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE_SECONDS)

    def run_to_its_end(self) -> tuple[int, str]:
        """Start it where it must fail; its exit code and what it printed."""
        done = subprocess.run(
            self._command, cwd=_ROOT, env=self._environment, capture_output=True, timeout=PATIENCE_SECONDS, check=False
        )
        return done.returncode, (done.stdout + done.stderr).decode()

    def prepare(self, image: PushedImage) -> Any:
        """Make an image startable; its status."""
        name = f"{self.address}/{image.name}"
        return ask(self._socket, op="prepare", image=name, architecture=host_architecture())

    def remove(self, image_id: str) -> None:
        """Remove an image."""
        ask(self._socket, op="remove", image=image_id)

    def image(self, image_id: str) -> Any:
        """An image's status now."""
        return next(one for one in ask(self._socket, op="list") if one["imageId"] == image_id)

    def image_ids(self) -> list[str]:
        """All images it has."""
        return [one["imageId"] for one in ask(self._socket, op="list")]

    def notes(self) -> str:
        """What it had to say."""
        return "\n".join(note["text"] for note in ask(self._socket, op="notes"))

    def wait_until_unpacked(self, image_id: str) -> None:
        """Until no byte of it is read through the network any more."""
        self.until(lambda: self.image(image_id)["state"] == "MATERIALIZED")

    def start_reading(self, image: PushedImage, *names: str) -> "subprocess.Popen[bytes]":
        """Read files of an image one after the other."""
        paths = [self.store / "overlay" / image.layer_id / "diff" / name for name in names]
        reader = subprocess.Popen(("cat", *paths), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._readers.append(reader)
        return reader

    def read(self, image: PushedImage, *names: str) -> bytes:
        """Read files whole."""
        return finish(self.start_reading(image, *names))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, as long as the service runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def end(self) -> None:
        """End readers, service and mount; nothing is left that could hang."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE_SECONDS)
        if any(reader.poll() is None for reader in self._readers):
            _abort(self.store / "overlay")
        for reader in self._readers:
            reader.kill()
            reader.communicate()
        unmount_images(self.state_dir)

    def _answers(self) -> bool:
        with suppress(NotFoundError):
            ask(self._socket, op="list")
            return True
        return False


def finish(reader: "subprocess.Popen[bytes]") -> bytes:
    """Wait for a reader's end, and return what it read without an error."""
    output, problem = reader.communicate(timeout=PATIENCE_SECONDS)
    assert not problem, problem.decode()
    return output


@contextmanager
def served_images(folder: Path, address: str, *arguments: str) -> Iterator[ServedImages]:
    """A running service; arguments go to it."""
    service = ServedImages(folder, address, *arguments)
    try:
        service.start()
        yield service
    finally:
        service.end()


def push_indexed(
    registry: Registry,
    repository: str,
    tar: bytes,
    *,
    span_size: int = SPAN_SIZE,
    spoil: Callable[[Ztoc], Ztoc] | None = None,
) -> PushedImage:
    """Push an image of one layer with an index of version 1, which `spoil` may have changed.

    Args:
        registry: A running one.
        repository: For this image alone.
        tar: The layer.
        span_size: Uncompressed bytes between checkpoints.
        spoil: Makes what the index says out of what is true.
    """
    layer = gzip.compress(tar, compresslevel=1, mtime=0)
    with tempfile.TemporaryDirectory() as folder:
        conf = _write_registries(Path(folder) / "registries.conf", registry.address)
        client = RegistryClient(Registries((conf,)), {})
    reference = parse_reference(f"{registry.address}/{repository}:1")
    index = build_layer_index([layer], Compression.GZIP, span_size=span_size)
    configuration = {
        "architecture": host_architecture(),
        "os": "linux",
        "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": [index.diff_id]},
    }
    config = client.push_blob(reference, json.dumps(configuration).encode())
    blob = client.push_blob(reference, layer)
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": LAYER, "digest": blob.digest, "size": blob.size}],
    }).encode()  # fmt: skip
    client.push_manifest(reference, manifest, MANIFEST)
    ztoc = index.ztoc if spoil is None else spoil(index.ztoc)
    _push_index(client, reference, manifest, blob, client.push_blob(reference, write_ztoc(ztoc)))
    return PushedImage(f"{repository}:1", index.diff_id.removeprefix("sha256:"), blob.size)


def _push_index(
    client: RegistryClient, reference: ImageReference, manifest: bytes, layer: Descriptor, ztoc: Descriptor
) -> None:
    client.push_blob(reference, manifests.EMPTY_CONFIG)
    found = manifests.Descriptor(manifests.ZTOC_MEDIA_TYPE, ztoc.digest, ztoc.size)
    subject = manifests.Descriptor(MANIFEST, digest_of(manifest), len(manifest))
    entry = manifests.ZtocEntry(found, layer.digest, LAYER)
    document = manifests.write_index(manifests.SociIndex(manifests.IndexVersion.V1, (entry,), subject=subject))
    digest = digest_of(document)
    client.push_manifest(reference.at(digest), document, MANIFEST)
    kind = manifests.IndexVersion.V1.value
    referrer = Descriptor(MANIFEST, digest, len(document), artifact_type=kind)
    client.add_referrer(reference, digest_of(manifest), referrer)


def _write_registries(path: Path, address: str) -> Path:
    path.write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    return path


def _abort(mounted: Path) -> None:
    """End every request with an error (linux/Documentation/filesystems/fuse.rst)."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(mounted):
            if not (_CONNECTIONS / fields[2].partition(":")[2]).exists():
                subprocess.run(("mount", "-t", "fusectl", "none", _CONNECTIONS), check=False, capture_output=True)
            (_CONNECTIONS / fields[2].partition(":")[2] / "abort").write_text("1")
