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
from edge.errors import EdgeError, NotFoundError, RefusedError, RegistryUnavailableError, StoreError, StoreFullError
from edge.files import write_atomically
from edge.images.completion import Completion
from edge.images.first_files import ImageLayer, read_first_files
from edge.images.image_store import ImageRecord, ImageStore, set_aside
from edge.images.layers import LayerFolders, free_bytes
from edge.images.lazy_content import READ_SECONDS
from edge.images.making import MadeImage, Maker, Progress
from edge.images.oci.client import RegistryClient
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.serving import Layer, Serving

_log = logging.getLogger(__name__)

_NOTES: Final = 200
_SAME_NOTE_SECONDS: Final = 60.0
_UNUSED_SECONDS: Final = 20.0
"""After so long without a read, what was inflated goes: the kernel has what containers read in its page cache."""
_LOW_SHARE: Final = 0.10
_ENOUGH_SHARE: Final = 0.15
"""Of the disk that is free: below the one, images that nobody needs go, until there is the other."""


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

    def prepare(self, reference: str, architecture: str, progress: Progress = lambda *_: None) -> ImageStatus:
        """Make an image startable, and go on fetching it.

        When its registry is away, the image of that name that is here will do, as with the ECS agent.

        Raises:
            InvalidInputError: It cannot be served from here; an ordinary pull may have it.
            EngineError: The registry does not have it, or does not answer.
            StoreError: There is no space, or the store is damaged.
        """
        here = self._named(reference)
        if here is not None and "@sha256:" in reference:
            return self._started(here)
        try:
            return self._publish(lambda: self._maker.make(reference, architecture, progress))
        except RegistryUnavailableError as error:
            if here is None:
                raise
            self._note(f"{reference} is used as it is here: {error}")
            return self._started(here)

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
        if made.first:
            self._completion.fetch_first(made.first)
        else:
            threading.Thread(target=self._read_first_files, args=(made,), name="first files", daemon=True).start()
        return status

    def _read_first_files(self, made: MadeImage) -> None:
        with self._lock:
            chain = [self._serving.layers.get(one.layer_id) for one in self._store.chain(made.image.layer)]
        served = [layer.served for layer in reversed(chain) if layer is not None]
        layers = [ImageLayer(one.tree, one.content) for one in served if one.tree and one.content]
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

    def _named(self, reference: str) -> ImageRecord | None:
        with self._lock, suppress(EdgeError):
            return self._find(reference)
        return None

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

    def collect(self) -> None:
        """Make space, if there is little: what nobody needs and was published first goes first."""
        with self._lock:
            free, size = free_bytes(self._root)
            if free >= size * _LOW_SHARE:
                return
            for image in self._store.images():
                if free >= size * _ENOUGH_SHARE:
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
