"""Images served through FUSE from tars on the disk: the store Podman reads, without a registry and without fetching."""

import hashlib
import io
import itertools
import json
import os
import queue
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.images.fuse.mount import mount, unmount
from edge.images.fuse.server import FuseServer, Session
from edge.images.image_store import ImageRecord, ImageStore, LayerRecord, chain_ids, link_of
from edge.images.namespace import OverlayNamespace, ServedLayer
from edge.images.soci.tar_scan import TarScanner
from edge.images.tree import LayerTree, Record, write_tree
from tests.support.oci_layout import CONFIG, MANIFEST, host_architecture

_PATIENCE_SECONDS = 30
_CREATED = "2026-01-02T03:04:05Z"
_UNCOMPRESSED_LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Member:
    """A tar member; `kind` as `tarfile` has it."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""
    xattrs: Mapping[str, str] | None = None


def layer_tar(*members: Member) -> bytes:
    """A tar with these members, in this order, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in members:
            info = tarfile.TarInfo(one.name)
            info.size, info.mode, info.type, info.linkname = len(one.data), one.mode, one.kind, one.target
            info.mtime = 1_700_000_000
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (one.xattrs or {}).items()}
            tar.addfile(info, io.BytesIO(one.data))
    return buffer.getvalue()


def program(path: Path, name: str, mode: int = 0o755) -> tuple[Member, ...]:
    """The members of a dynamic program of this host with all its libraries."""
    listed = subprocess.run(("ldd", path), capture_output=True, text=True, check=True).stdout
    libraries = [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
    files = [Member(library.lstrip("/"), Path(library).read_bytes(), 0o755) for library in libraries]
    return (*files, Member(name, path.read_bytes(), mode))


class TarContent:
    """`Content` of an uncompressed tar on the disk."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def ready(self, file: Record, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, file.offset + offset)

    def read(self, file: Record, offset: int, size: int) -> bytes:
        return self.ready(file, offset, size)


class LazyStore:
    """An additional image store whose layers are served by this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "store"
        self.records = ImageStore(self.root)
        self.namespace = OverlayNamespace()
        self._slots = itertools.count(1)
        self.descriptor = mount(self.root / "overlay", "edge-test")
        sessions: queue.SimpleQueue[Session] = queue.SimpleQueue()
        self._server = FuseServer(self.descriptor, self.namespace, agreed=sessions.put)
        self._thread = threading.Thread(target=self._server.serve, name="fuse")
        self._thread.start()
        self.session = sessions.get(timeout=_PATIENCE_SECONDS)

    def publish(self, layers: Sequence[bytes], *names: str, **config: object) -> str:
        """Serve an image of these tars, the lowest first, and return its id."""
        diff_ids = [_digest(one) for one in layers]
        ids = chain_ids(diff_ids)
        document = {
            "architecture": host_architecture(),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], **config},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        configuration = json.dumps(document, sort_keys=True).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": {"mediaType": CONFIG, "digest": _digest(configuration), "size": len(configuration)},
                "layers": [
                    {"mediaType": _UNCOMPRESSED_LAYER, "digest": digest, "size": len(one)}
                    for digest, one in zip(diff_ids, layers, strict=True)
                ],
            }
        ).encode()
        known = {record.layer_id for record in self.records.layers()}
        parents = ["", *ids]
        new = [index for index, layer_id in enumerate(ids) if layer_id not in known]
        for index in new:
            self._serve(ids[index], ids[:index], layers[index])
        image_id = _digest(configuration).removeprefix("sha256:")
        self.records.publish(
            ImageRecord(image_id, _digest(manifest), names, ids[-1], _CREATED),
            [
                LayerRecord(
                    ids[index], parents[index], diff_ids[index], len(layers[index]), diff_ids[index],
                    len(layers[index]), 0, _CREATED,
                )
                for index in new
            ],
            manifest,
            configuration,
        )  # fmt: skip
        return image_id

    def remove(self, image_id: str) -> None:
        """Take an image out of force, and serve its layers no more."""
        for record in self.records.remove(image_id):
            self.namespace.remove(record.layer_id)

    def unpack(self, layer_id: str) -> Path:
        """Put a layer without whiteouts into a plain directory, let its `diff` lead there, and return where that is."""
        plain = self.folder / f"plain-{layer_id}"
        plain.mkdir()
        subprocess.run(("tar", "-xpf", self._tar(layer_id), "-C", plain), check=True)
        self.namespace.unpack(layer_id, str(plain))
        return plain

    def close(self) -> None:
        """Serve no more; the containers must be gone."""
        unmount(self.root / "overlay")
        self._server.stop()
        self._thread.join(_PATIENCE_SECONDS)
        # The kernel ends what is still asked when nobody has the descriptor.
        os.close(self.descriptor)

    def _serve(self, layer_id: str, below: Sequence[str], data: bytes) -> None:
        tar, tree = self._tar(layer_id), self.folder / f"{layer_id}.tree"
        tar.write_bytes(data)
        scanner = TarScanner()
        scanner.feed(memoryview(data))
        write_tree(tree, scanner.files)
        lower = tuple(link_of(one) for one in reversed(below))
        self.namespace.add(
            ServedLayer(next(self._slots), layer_id, link_of(layer_id), lower, LayerTree(tree), TarContent(tar))
        )

    def _tar(self, layer_id: str) -> Path:
        return self.folder / f"{layer_id}.tar"


@contextmanager
def lazy_store(folder: Path) -> Iterator[LazyStore]:
    """Serve a store in `folder` until the block ends."""
    with ExitStack() as stack:
        store = LazyStore(folder)
        stack.callback(store.close)
        yield store


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
