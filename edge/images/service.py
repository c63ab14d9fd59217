"""The image service: what is on disk, what Podman sees, what is fetched, and what is removed again."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from edge import memory
from edge.errors import (
    EdgeError,
    EngineUnavailableError,
    NotFoundError,
    RefusedError,
    RegistryUnavailableError,
    StoreError,
    StoreFullError,
)
from edge.files import write_atomically
from edge.images.completion import RESERVE_BYTES, Completion
from edge.images.first_files import ImageLayer, read_first_files
from edge.images.image_store import ImageRecord, ImageStore, set_aside
from edge.images.kept_index import kept_index
from edge.images.layers import LayerFolders, free_bytes
from edge.images.lazy_content import READ_SECONDS
from edge.images.making import MadeImage, Maker, Progress
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import host_architecture
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.serving import Layer, Serving
from edge.images.starts.learning import Starts
from edge.model.start_profile import StartProfile

_log = logging.getLogger(__name__)

_NOTES: Final = 200
_SAME_NOTE_SECONDS: Final = 60.0
_UNUSED_SECONDS: Final = 20.0
"""After so long without a read, what was inflated goes: the kernel has what containers read in its page cache."""
_LOW_SHARE: Final = 0.10
"""Of the disk: when less is free, images that nobody needs go."""
_ENOUGH: Final = 1.5
"""Times that: when so much is free, no more go."""


class ImageState(StrEnum):
    """How far an image has come: docs/lazy-images.md."""

    STARTABLE = "STARTABLE"
    COMPLETE = "COMPLETE"
    MATERIALIZED = "MATERIALIZED"


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """One image, as `edge image ls` shows it.

    Attributes:
        image_id: Hexadecimal digest of its configuration.
        digest: `sha256:…` of its manifest.
        size: Bytes of its layers in the registry.
        here: How many of them have arrived.
        wanted: How many of them containers have read since the service started, of layers not yet unpacked.
        protected: It is running, wanted or needed to go back, and not removed for space.
        problem: Why it is not further, empty while it moves.
    """

    image_id: str
    digest: str
    names: tuple[str, ...]
    state: ImageState
    size: int
    here: int
    wanted: int
    protected: bool
    problem: str

    def to_json(self) -> dict[str, Any]:
        """Return it as the API tells it."""
        return {
            "imageId": self.image_id,
            "digest": self.digest,
            "names": list(self.names),
            "state": self.state.value,
            "size": self.size,
            "here": self.here,
            "wanted": self.wanted,
            "protected": self.protected,
            "problem": self.problem,
        }


class ImageService:
    """One store of images and its mount. Methods may be called from any thread.

    Args:
        root: The state directory; locked by the caller (`serving.lock_root`).
        client: The registries.
        bytes_per_second: For what no container waits for; 0 for no limit.
        read_seconds: How long a read waits for a registry that is away, before it fails with EIO.
    """

    def __init__(
        self, root: Path, client: RegistryClient, bytes_per_second: int = 0, read_seconds: float = READ_SECONDS
    ) -> None:
        self._root = root
        self._lock = threading.RLock()
        self.notes: deque[tuple[float, str]] = deque(maxlen=_NOTES)
        try:
            self._store = ImageStore(root / "store")
        except StoreFullError:
            raise
        except StoreError as error:
            set_aside(root / "store")
            self._store = ImageStore(root / "store")
            self._note(f"{error}; the image store begins anew, layers are kept")
        self._folders = LayerFolders(root)
        self._serving = Serving(root, self._folders, client, self._note, read_seconds)
        self._maker = Maker(client, self._folders, self._serving, self._note, self._older)
        self._completion = Completion(
            self._folders, self._serving, self._unfinished, self._note, bytes_per_second, self._maker
        )
        self._starts = Starts(root, self._serving, self._note)
        self._preparing = 0
        self._protected = _load_protected(root / "protected.json")

    def start(self, environment: Mapping[str, str]) -> threading.Thread:
        """Serve what is on disk and go on fetching; returns the thread that lasts as long as the mount.

        Raises:
            StoreError: The mount cannot be made.
            RefusedError: Not permitted.
        """
        self._serving.open_all()
        for image in self._store.images():
            if any(layer.layer_id not in self._serving.layers for layer in self._store.chain(image.layer)):
                self._note(f"image {image.image_id[:12]} has lost a layer and is removed from the store")
                self._store.remove(image.image_id)
        self._starts.tidy({image.image_id for image in self._store.images()})
        thread = self._serving.mount(environment)
        threading.Thread(target=self._stay_small, name="memory", daemon=True).start()
        self._completion.start()
        return thread

    def stop(self) -> None:
        """End; the mount and what uses it stay."""
        self._completion.stop()

    def _stay_small(self) -> None:
        while True:
            self._serving.inflated.clear_when_unused(_UNUSED_SECONDS)
            memory.release()

    # --- what can be asked

    def prepare(
        self, reference: str, architecture: str, progress: Progress = lambda *_: None, *, proven: bool = False
    ) -> ImageStatus:
        """Make an image startable, and go on fetching it.

        When its registry is away, the image of that name that is here will do, as with the ECS agent.

        Args:
            reference: The image; by digest, where it is proven.
            architecture: As OCI names it.
            progress: Told of bytes.
            proven: Its manifest is proven, and so must be everything that is read of the image.

        Raises:
            EngineUnavailableError: What is here of a proven image is not proved yet; it will be.
            InvalidInputError: It cannot be served from here; an ordinary pull may have it.
            EngineError: The registry does not have it, or does not answer.
            StoreError: There is no space, or the store is damaged.
        """
        here = self._named(reference)
        if here is not None and "@sha256:" in reference:
            if proven and not self.sealed(here.image_id):
                raise EngineUnavailableError(
                    f"{reference} is here by an index that nobody has signed, and not proved yet",
                    reason="CannotPullContainerError",
                )
            return self._started(here)
        try:
            return self._publish(lambda: self._maker.make(reference, architecture, progress, proven=proven))
        except RegistryUnavailableError as error:
            if here is None:
                raise
            self._note(f"{reference} is used as it is here: {error}")
            return self._started(here)

    def sealed(self, image_id: str) -> bool:
        """Say whether everything that is read of an image is what its digests say, from the first byte on.

        Of an image that is not here, Podman's own, it is so when it is so of all layers: it may share any of them.
        """
        with self._lock:
            image = next((one for one in self._store.images() if one.image_id == image_id), None)
            chain = self._store.chain(image.layer) if image is not None else self._store.layers()
            layers = [self._serving.layers.get(one.layer_id) for one in chain]
            return all(layer is None or layer.sealed for layer in layers)

    def take(
        self, path: Path, tag: str, name: str, architecture: str, progress: Progress = lambda *_: None
    ) -> ImageStatus:
        """Import an image from an OCI layout or archive; raises as `Maker.take`."""
        return self._publish(lambda: self._maker.take(path, tag, name, architecture, progress))

    def _publish(self, make: Callable[[], MadeImage]) -> ImageStatus:
        self.collect()
        with self._lock:
            self._preparing += 1
        try:
            made = make()
            with self._lock:
                self._store.publish(made.image, made.layers, made.manifest, made.configuration)
        finally:
            with self._lock:
                self._preparing -= 1
        status = self._started(made.image)
        known = self._starts.begins(made, self._layers(made.image))
        if made.first:
            self._completion.fetch_first(made.first)
        elif not known:
            threading.Thread(target=self._read_first_files, args=(made,), name="first files", daemon=True).start()
        return status

    def _read_first_files(self, made: MadeImage) -> None:
        chain = self._layers(made.image)
        served = [(layer.served.tree, layer.content or layer.served.content) for layer in reversed(chain)]
        layers = [ImageLayer(tree, content) for tree, content in served if tree and content]
        try:
            read_first_files(layers, made.configuration)
        except EdgeError as error:
            _log.info("what %s reads first did not come: %s", made.image.image_id[:12], error)

    def _started(self, image: ImageRecord) -> ImageStatus:
        # Whoever asked will start a container now: that comes first.
        self._serving.pulse.beat()
        self._completion.look()
        with self._lock:
            return self._status(image)

    def _layers(self, image: ImageRecord) -> list[Layer]:
        """An image's layers, the lowest first."""
        with self._lock:
            chain = [self._serving.layers.get(one.layer_id) for one in self._store.chain(image.layer)]
        return [layer for layer in chain if layer is not None]

    def _named(self, reference: str) -> ImageRecord | None:
        with self._lock, suppress(EdgeError):
            return self._find(reference)
        return None

    def kept_indexes(self, reference: str) -> dict[str, Path]:
        """Return the indexes that were made here of an image's layers, by the layers' digests.

        Raises:
            NotFoundError: There is no such image.
        """
        with self._lock:
            chain = self._store.chain(self._find(reference).layer)
        paths = {layer.digest: kept_index(self._folders.folder(layer.layer_id)) for layer in chain}
        return {digest: path for digest, path in paths.items() if path.exists()}

    def images(self) -> list[ImageStatus]:
        """Return all images."""
        with self._lock:
            return [self._status(image) for image in self._store.images()]

    def remove(self, reference: str, *, force: bool = False) -> ImageStatus:
        """Remove an image and the layers only it has.

        Raises:
            NotFoundError: There is none.
            RefusedError: It is protected.
        """
        with self._lock:
            image = self._find(reference)
            status = self._status(image)
            if status.protected and not force:
                raise RefusedError(
                    f"image {reference} is used by a task",
                    hint="Stop the task first; --force removes it under a running container, whose reads fail then.",
                )
            self._remove(image)
            return status

    def prune(self) -> list[ImageStatus]:
        """Remove all images that are not protected, and what is left of broken-off fetches."""
        with self._lock:
            gone = [status for status in map(self._status, self._store.images()) if not status.protected]
            for status in gone:
                self._remove(self._find(status.image_id))
            if not self._preparing:
                for layer_id in self._folders.half_made():
                    self._folders.give_up(layer_id)
            self._remove_orphans()
            return gone

    def older(self, reference: str) -> list[tuple[str, Path]]:
        """Return the layers that are here of a repository's images: digest, and where the recipe is or would be.

        Raises:
            InvalidInputError: It is no reference.
        """
        layers = [self._serving.layers.get(layer_id) for layer_id in self._older(parse_reference(reference))]
        return [
            (one.facts.digest, self._folders.folder(one.facts.layer_id) / "recipe") for one in layers if one is not None
        ]

    def protect(self, image_ids: Iterable[str]) -> None:
        """Say which images are needed: running, wanted, or to go back to. What was said before is forgotten."""
        wanted = frozenset(image_ids)
        with self._lock:
            if wanted != self._protected:
                write_atomically(self._root / "protected.json", json.dumps(sorted(wanted)).encode())
                self._protected = wanted

    def ready(self, reference: str) -> StartProfile | None:
        """A container of an image is ready: what was read till then is what its start reads.

        Returns:
            What is known of its starts now; None when this one was not recorded.

        Raises:
            NotFoundError: There is no such image.
            StoreError: It cannot be kept.
        """
        with self._lock:
            image = self._find(reference)
        return self._starts.ready(image.image_id)

    def profiles(self) -> list[StartProfile]:
        """Return what is known of images' starts, the newest first."""
        return self._starts.profiles.all()

    def take_profile(self, profile: StartProfile) -> None:
        """Take a profile from elsewhere; raises as `Starts.put`."""
        self._starts.put(profile, f"linux/{host_architecture()}")

    def collect(self, *, but_the_newest: bool = False) -> None:
        """Make space, if there is little: what nobody needs and was published first goes first."""
        with self._lock:
            free, size = free_bytes(self._root)
            # Of a small disk completion leaves more alone than a tenth: it must not wait for what is never collected.
            low = max(size * _LOW_SHARE, min(RESERVE_BYTES, size / 4))
            # While another image is made, layers of no image stay: removing images would free nothing.
            if free >= low or self._preparing:
                return
            images = self._store.images()
            for image in images[:-1] if but_the_newest else images:
                if free >= low * _ENOUGH:
                    return
                if image.image_id not in self._protected:
                    self._note(f"image {image.names[0] if image.names else image.image_id[:12]} is removed for space")
                    self._remove(image)
                    free, _ = free_bytes(self._root)

    # --- inside

    def _note(self, text: str) -> None:
        # What is tried again and again fails again and again: once a minute is enough to know.
        now = time.time()
        if any(told == text and now - when < _SAME_NOTE_SECONDS for when, told in tuple(self.notes)):
            return
        _log.info("%s", text)
        self.notes.append((now, text))

    def _unfinished(self) -> list[str]:
        # Whoever has just asked for an image has not said yet that a task needs it.
        self.collect(but_the_newest=True)
        with self._lock:
            images = self._store.images()
            wanted = [image for image in images if image.image_id in self._protected]
            others = [image for image in images if image.image_id not in self._protected]
            chains = [self._store.chain(image.layer) for image in (*wanted, *others)]
        return [layer.layer_id for chain in chains for layer in chain]

    def _older(self, reference: ImageReference) -> list[str]:
        """The layers of images of a repository, the newest image's first, and of each the top one."""
        with self._lock:
            images = [one for one in reversed(self._store.images()) if _is_of(one, reference)]
            chains = [reversed(self._store.chain(image.layer)) for image in images]
        return list(dict.fromkeys(layer.layer_id for chain in chains for layer in chain))

    def _find(self, reference: str) -> ImageRecord:
        names = {reference}
        with suppress(EdgeError):
            names.add(str(parse_reference(reference)))
        for image in self._store.images():
            if names & {*image.names, image.image_id, image.image_id[:12], image.digest}:
                return image
        raise NotFoundError(f"there is no image {reference} here", hint="`edge image ls` lists them.")

    def _remove(self, image: ImageRecord) -> None:
        self._store.remove(image.image_id)
        self._starts.forget(image.image_id)
        self._remove_orphans()

    def _remove_orphans(self) -> None:
        if self._preparing:
            # Layers of an image that is not published yet look like nobody's.
            return
        needed = {layer.layer_id for layer in self._store.layers()}
        for layer_id in [one for one in self._serving.layers if one not in needed]:
            self._serving.close(layer_id)
            self._folders.remove(layer_id)

    def _status(self, image: ImageRecord) -> ImageStatus:
        layers: list[Layer] = [self._serving.layers[one.layer_id] for one in self._store.chain(image.layer)]
        size, here = sum(layer.facts.size for layer in layers), sum(layer.here for layer in layers)
        problems = (self._completion.problems.get(layer.facts.layer_id, "") for layer in layers)
        if all(layer.unpacked for layer in layers):
            state = ImageState.MATERIALIZED
        else:
            state = ImageState.COMPLETE if here >= size else ImageState.STARTABLE
        return ImageStatus(
            image.image_id,
            image.digest,
            image.names,
            state,
            size,
            here,
            sum(layer.wanted for layer in layers),
            image.image_id in self._protected,
            next(filter(None, problems), ""),
        )


def _is_of(image: ImageRecord, reference: ImageReference) -> bool:
    for name in image.names:
        with suppress(EdgeError):
            if parse_reference(name).name == reference.name:
                return True
    return False


def _load_protected(path: Path) -> frozenset[str]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return frozenset()
    return frozenset(str(one) for one in found) if isinstance(found, list) else frozenset()
