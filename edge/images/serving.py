"""The mount and the layers in it: what is on disk becomes what containers see."""

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edge import locks, memory
from edge.errors import EdgeError, RefusedError, StoreError
from edge.files import write_atomically
from edge.images import keeper
from edge.images.blob_cache import BlobCache
from edge.images.delta.chunk_file import read_chunk_file
from edge.images.delta.content import DeltaContent
from edge.images.delta.older import OlderFiles, OlderLayer, likely_share
from edge.images.fuse import mount
from edge.images.fuse.server import FuseServer, Session
from edge.images.image_store import link_of
from edge.images.inflated import InflatedSpans
from edge.images.layers import LayerFacts, LayerFolders
from edge.images.lazy_content import LazyContent
from edge.images.namespace import OverlayNamespace, ServedLayer
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.pulse import Pulse
from edge.images.starts import late_windows
from edge.images.starts.pieces import BundledContent, Bundles
from edge.images.starts.recorder import Recorder
from edge.images.tree import LayerTree
from edge.images.unpacked_content import UnpackedContent

_log = logging.getLogger(__name__)

VERSION: Final = 1
"""Of the folder's layout."""
_READY_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is served.

    Attributes:
        content: What has arrived of it; None once it is unpacked.
    """

    facts: LayerFacts
    served: ServedLayer
    content: LazyContent | DeltaContent | None

    @property
    def here(self) -> int:
        """Compressed bytes that have arrived."""
        return self.facts.size if self.content is None else self.content.here

    @property
    def wanted(self) -> int:
        """How many of them containers have read; 0 once it is unpacked."""
        return 0 if self.content is None else self.content.wanted

    @property
    def sealed(self) -> bool:
        """Whether everything read of it is what its digest says."""
        return self.facts.sealed or self.unpacked

    @property
    def files(self) -> LazyContent | DeltaContent | UnpackedContent:
        """Where the bytes of its files are."""
        if self.content is not None:
            return self.content
        if not isinstance(self.served.content, UnpackedContent):
            raise TypeError(self.facts.layer_id)
        return self.served.content

    @property
    def unpacked(self) -> bool:
        """Whether it is a plain directory."""
        return self.content is None


class LayerBlob:
    """`BlobSource` of one layer in its registry."""

    def __init__(self, client: RegistryClient, facts: LayerFacts) -> None:
        self._client = client
        self._reference: ImageReference = parse_reference(facts.source)
        self._blob = Descriptor("", facts.digest, facts.size)

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """See `BlobSource`."""
        return self._client.chunks(self._reference, self._blob, offset, size)

    def beside(self, blob: Descriptor, most: int) -> bytes:
        """Return another blob of its repository, whole and verified; raises as `RegistryClient.blob`."""
        return self._client.blob(self._reference, blob, most)


class Serving:
    """The layers of one store and their mount. Usable from many threads.

    Args:
        root: The service's state directory.
        folders: The layers in it.
        client: Where what is missing is fetched.
        told: Told of what went wrong, in a sentence.
        read_seconds: How long a read waits for a registry that is away.
    """

    def __init__(
        self,
        root: Path,
        folders: LayerFolders,
        client: RegistryClient,
        told: Callable[[str], None],
        read_seconds: float,
    ) -> None:
        self._root = root
        self._folders = folders
        self._client = client
        self._told = told
        self._read_seconds = read_seconds
        self._namespace = OverlayNamespace()
        self.bundles = Bundles(root, told)
        self.inflated = InflatedSpans(memory.spare_bytes)
        self.pulse = Pulse()
        self.layers: Mapping[str, Layer] = {}
        self._changing = threading.Lock()
        self._server: FuseServer | None = None
        self._read_ahead = 0
        self._recorder: Recorder | None = None

    # --- the mount

    @property
    def mount_point(self) -> Path:
        """Where the layers are seen."""
        return _mount_point(self._root)

    def mount(self, environment: Mapping[str, str]) -> threading.Thread:
        """Take over the mount, or make it, and answer on a thread that ends with the mount.

        Raises:
            StoreError: It cannot be mounted.
            RefusedError: Not permitted.
        """
        record, session_file = self._root / "keeper.json", self._root / "session.json"
        descriptor = keeper.kept(record, environment) if mount.is_mounted(self.mount_point) else None
        session = None
        if descriptor is not None:
            try:
                session = Session.from_json(session_file.read_bytes())
            except (OSError, ValueError, TypeError):
                # It died before the kernel's first word was answered: that word is still to come.
                _log.info("the mount was never in use")
        else:
            keeper.release(record, environment)
            if mount.is_mounted(self.mount_point):
                self._told(f"the mount on {self.mount_point} was lost; containers that use it must be started again")
                mount.unmount(self.mount_point)
            session_file.unlink(missing_ok=True)
            descriptor = mount.mount(self.mount_point, "edge-images")
            keeper.keep(descriptor, record, environment)
        server = self._server = FuseServer(
            descriptor,
            self._namespace,
            session,
            lambda agreed: write_atomically(session_file, agreed.to_json()),
        )
        thread = threading.Thread(target=server.serve, name="fuse", daemon=True)
        thread.start()
        server.ready.wait(_READY_SECONDS)
        self.adapt_read_ahead()
        return thread

    def adapt_read_ahead(self) -> None:
        """Read much at once where all bytes are here, and little where they must be fetched, or are recorded."""
        contents = [layer.content for layer in self.layers.values()]
        whole = all(content is None or not content.cache.missing for content in contents)
        recorded = self._recorder is not None and self._recorder.busy
        wanted = mount.READ_AHEAD_KIB if whole and not recorded else mount.LAZY_READ_AHEAD_KIB
        if self._server is not None and wanted != self._read_ahead:
            self._read_ahead = wanted
            mount.read_ahead(self.mount_point, wanted)

    # --- layers

    def record_with(self, recorder: Recorder) -> None:
        """Tell it of each read from now on."""
        self._recorder = recorder
        recorder.changed = self.adapt_read_ahead
        self._namespace.saw = recorder.saw

    def open_all(self) -> None:
        """Serve what is on disk."""
        for facts in self._folders.facts():
            try:
                self.open(facts)
            except EdgeError as error:
                self._told(f"layer {facts.layer_id[:12]} cannot be served and is fetched again: {error}")
                self._folders.remove(facts.layer_id)

    def open(self, facts: LayerFacts) -> Layer:
        """Serve a layer.

        Raises:
            StoreError: Its files are damaged.
        """
        folder = self._folders.folder(facts.layer_id)
        tree = LayerTree(folder / "tree")
        lower = tuple(link_of(layer_id) for layer_id in facts.below)
        served = ServedLayer(facts.slot, facts.layer_id, link_of(facts.layer_id), lower, tree, None)
        unpacked = self._folders.unpacked(facts.layer_id)
        if unpacked.is_dir():
            layer = self._unpacked(facts, served, unpacked)
        else:
            opened = self._delta if (folder / "chunks").exists() else self._lazy
            layer = opened(facts, served, folder)
        self._put(layer)
        return layer

    def _lazy(self, facts: LayerFacts, served: ServedLayer, folder: Path) -> Layer:
        blob = LayerBlob(self._client, facts)
        table = late_windows.table_of(folder, blob.beside, self._told, self._read_seconds)
        content = LazyContent(
            facts.layer_id,
            table=table,
            cache=BlobCache(folder, facts.size, len(table.spans)),
            inflated=self.inflated,
            source=blob,
            pulse=self.pulse,
            read_seconds=self._read_seconds,
            told=self._told,
        )
        pieces = self.bundles.pieces(facts.layer_id)
        seen = BundledContent(pieces, content, self.pulse, self._read_seconds) if pieces is not None else content
        return Layer(facts, replace(served, content=seen), content)

    def _delta(self, facts: LayerFacts, served: ServedLayer, folder: Path) -> Layer:
        table = read_chunk_file(folder / "chunks")
        if served.tree is None:
            raise AssertionError
        try:
            older = tuple((folder / "older").read_text(encoding="ascii").split())
        except (OSError, ValueError):
            # Nothing is found there then.
            older = ()
        content = DeltaContent(
            facts.layer_id,
            tree=served.tree,
            table=table,
            cache=BlobCache(folder, table.tar_size, table.count),
            older=OlderFiles(lambda: self.older_layers(older)),
            inflated=self.inflated,
            source=LayerBlob(self._client, facts),
            pulse=self.pulse,
            read_seconds=self._read_seconds,
            told=self._told,
        )
        return Layer(facts, replace(served, content=content), content)

    def share_here(self, folder: Path, layer_ids: Iterable[str]) -> float:
        """Return how much of a layer that is being made is in older layers, going by paths and sizes."""
        tree = LayerTree(folder / "tree")
        try:
            return likely_share(tree, self.older_layers(layer_ids))
        finally:
            tree.close()

    def older_layers(self, layer_ids: Iterable[str]) -> list[OlderLayer]:
        """Return those of these layers that are served, to take files from."""
        found = (self.layers.get(layer_id) for layer_id in layer_ids)
        return [OlderLayer(one.facts.layer_id, one.served.tree, one.files) for one in found if one and one.served.tree]

    def _unpacked(self, facts: LayerFacts, served: ServedLayer, path: Path) -> Layer:
        if served.tree is None:
            raise AssertionError
        content = UnpackedContent(served.tree, path)
        return Layer(facts, replace(served, content=content, unpacked=str(path)), None)

    def switch_to_unpacked(self, layer_id: str) -> None:
        """Let new containers use the plain directory; those that run keep what they have."""
        layer = self.layers[layer_id]
        self._put(self._unpacked(layer.facts, layer.served, self._folders.unpacked(layer_id)))
        beside = (self.layers.get(one) for one in self.bundles.layers_beside(layer_id))
        if all(one is None or one.unpacked for one in beside):
            self.bundles.proved(layer_id)

    def close(self, layer_id: str) -> None:
        """Serve a layer no more."""
        with self._changing:
            self._namespace.remove(layer_id)
            self.layers = {key: layer for key, layer in self.layers.items() if key != layer_id}

    def _put(self, layer: Layer) -> None:
        with self._changing:
            self._namespace.add(layer.served)
            self.layers = {**self.layers, layer.facts.layer_id: layer}
        self.adapt_read_ahead()


def end_mount(root: Path, environment: Mapping[str, str]) -> None:
    """End the mount that services on `root` have left, for good. The caller holds the root's lock.

    Raises:
        RefusedError: A container uses it.
        StoreError: It cannot be unmounted.
    """
    mount.unmount_idle(_mount_point(root))
    keeper.release(root / "keeper.json", environment)


def prove_answers(root: Path) -> None:
    """Ask the mount of `root` for a name that nobody has asked for; return once the service has answered.

    The kernel remembers answers, so each question is a new one. It waits for ever where nobody answers.
    """
    with suppress(OSError):
        os.lstat(_mount_point(root) / secrets.token_hex(16))


def _mount_point(root: Path) -> Path:
    return root / "store" / "overlay"


def lock_root(root: Path) -> int:
    """Hold a state directory for one service, and return the lock's descriptor; closing it lets go.

    Raises:
        RefusedError: Another service works on it, or a newer version has.
        StoreError: It cannot be used.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(root / "service.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot use {root}: {error.strerror}") from error
    if not locks.take(descriptor):
        os.close(descriptor)
        raise RefusedError(f"another image service works on {root}", hint="Stop it first.")
    version = root / "version"
    try:
        found = int(version.read_text()) if version.exists() else 0
    except (OSError, ValueError) as error:
        hint = f"Remove {root}: images are fetched again."
        raise StoreError(f"cannot read {version}: {error}", hint=hint) from error
    if found > VERSION:
        raise RefusedError(
            f"{root} was written by a newer version (layout {found}, this one knows {VERSION})",
            hint="Install that version, or remove the directory: images are fetched again.",
        )
    if found < VERSION:
        write_atomically(version, f"{VERSION}\n".encode())
    return descriptor
