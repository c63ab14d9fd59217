"""The additional image store that Podman reads: JSON records, locks and image files, in containers/storage's format.

Its `overlay/` directory is the FUSE mount's place and is not touched here. Format: github.com/containers/storage
`layers.go`, `images.go`, `pkg/lockfile`, as of v1.43 (Podman 4.3.1) and v1.57 (Podman 5.4); what both accept.

    overlay-layers/layers.json  layers.lock
    overlay-images/images.json  images.lock  <image id>/<file for each big datum>
"""

import base64
import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, Final

from edge.errors import StoreError
from edge.files import store_error, sync_folder, write_atomically

_LAYERS: Final = "overlay-layers"
_IMAGES: Final = "overlay-images"
_PLAIN_NAME: Final = re.compile(r"[.0-9a-z]+")
_LAST_WRITE: Final = Struct("<QQI44s")
"""What a lock file holds, so that a running Podman notices a change: time in ns, counter, process id, randomness."""
_START_ANEW: Final = "Remove the image store; images are fetched again."
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """A layer, as containers/storage lists it.

    Attributes:
        layer_id: The chain id (`chain_ids`).
        parent: The chain id of the layer below, empty for the lowest.
        digest: `sha256:…` of the layer as the registry has it.
        compressed_size: Its bytes.
        diff_id: `sha256:…` of the uncompressed tar.
        size: The bytes of its files. Podman 4.3.1 fails on an image whose size is not known (-1).
        compression: As containers/storage numbers it: 0 none, 2 gzip.
    """

    layer_id: str
    parent: str
    digest: str
    compressed_size: int
    diff_id: str
    size: int
    compression: int
    created: str


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image, as containers/storage lists it.

    Attributes:
        image_id: Hexadecimal digest of its configuration.
        digest: `sha256:…` of its manifest.
        names: References with tag or digest; no other image of the store may have them.
        layer: The chain id of its top layer.
        created: RFC 3339.
    """

    image_id: str
    digest: str
    names: tuple[str, ...]
    layer: str
    created: str


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Return the chain id of each layer, lowest first."""
    ids: list[str] = []
    for diff_id in diff_ids:
        own = diff_id.removeprefix("sha256:")
        ids.append(hashlib.sha256(f"{ids[-1]}+{own}".encode()).hexdigest() if ids else own)
    return ids


def link_of(layer_id: str) -> str:
    """Return a layer's short name: 26 characters, always the same for the same layer."""
    return base64.b32encode(hashlib.sha256(layer_id.encode()).digest()).decode()[:26]


class ImageStore:
    """The records in a folder. One process writes; any number of Podmans read.

    Raises (all methods):
        StoreFullError: The disk is full or read-only; the former records are in force.
        StoreError: The records cannot be read or written.
    """

    def __init__(self, root: Path) -> None:
        """Open the store, making what is missing: without its lock files Podman cannot read it."""
        self.root = root
        try:
            for folder in (root, root / _LAYERS, root / _IMAGES):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not looked at when it is there: the mount on it may have nobody yet who answers.
            with suppress(FileExistsError):
                (root / "overlay").mkdir(mode=0o700)
            for name in (self._lock_file(_LAYERS), self._lock_file(_IMAGES)):
                name.touch(mode=0o600)
        except OSError as error:
            raise store_error(f"cannot make the image store {root}", error) from error
        self._layers = self._load(_LAYERS, _layer)
        self._images = self._load(_IMAGES, _image)
        self._check_chains(self._layers, self._images)

    def images(self) -> tuple[ImageRecord, ...]:
        """Return all images."""
        return tuple(_image(record) for record in self._images.values())

    def layers(self) -> tuple[LayerRecord, ...]:
        """Return all layers, each after the one below it."""
        return tuple(_layer(record) for record in self._layers.values())

    def chain(self, layer_id: str) -> tuple[LayerRecord, ...]:
        """Return a layer and those below it, the lowest first."""
        chain: list[LayerRecord] = []
        while layer_id:
            chain.append(_layer(self._layers[layer_id]))
            layer_id = chain[-1].parent
        return tuple(reversed(chain))

    def publish(self, image: ImageRecord, layers: Iterable[LayerRecord], manifest: bytes, configuration: bytes) -> None:
        """Put an image into force; names it has are taken from images that had them before.

        Args:
            image: Replaces one of the same id.
            layers: The lowest first; those that are there already may be left out.
            manifest: As the registry has it.
            configuration: Likewise.
        """
        data = {
            "manifest": manifest,
            f"manifest-{image.digest}": manifest,
            f"sha256:{image.image_id}": configuration,
        }
        new_layers = self._layers | {layer.layer_id: _layer_json(layer) for layer in layers}
        images = {key: _without_names(record, image.names) for key, record in self._images.items()}
        new_images = images | {image.image_id: _image_json(image, data)}
        self._check_chains(new_layers, new_images)
        folder = self.root / _IMAGES / image.image_id
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise store_error(f"cannot make {folder}", error) from error
        for key, content in data.items():
            write_atomically(folder / _file_name(key), content)
        with self._locked() as locks:
            # Layers first: an image without its layers would be an error to whoever reads in between.
            self._write(_LAYERS, new_layers, locks)
            self._write(_IMAGES, new_images, locks)
        self._layers, self._images = new_layers, new_images

    def remove(self, image_id: str) -> tuple[LayerRecord, ...]:
        """Take an image out of force, and return the layers that no other image needs, which are gone too.

        Harmless for an image that is not there.
        """
        if image_id not in self._images:
            return ()
        images = {key: record for key, record in self._images.items() if key != image_id}
        needed = {layer.layer_id for record in images.values() for layer in self.chain(record["layer"])}
        gone = tuple(_layer(record) for key, record in self._layers.items() if key not in needed)
        layers = {key: record for key, record in self._layers.items() if key in needed}
        with self._locked() as locks:
            self._write(_IMAGES, images, locks)
            self._write(_LAYERS, layers, locks)
        self._layers, self._images = layers, images
        shutil.rmtree(self.root / _IMAGES / image_id, ignore_errors=True)
        return gone

    def data(self, image_id: str) -> tuple[bytes, bytes]:
        """Return an image's manifest and configuration."""
        folder = self.root / _IMAGES / image_id
        try:
            return (folder / "manifest").read_bytes(), (folder / _file_name(f"sha256:{image_id}")).read_bytes()
        except OSError as error:
            raise store_error(f"cannot read image {image_id[:12]}", error) from error

    def _lock_file(self, part: str) -> Path:
        return self.root / part / f"{_what(part)}.lock"

    def _load(self, part: str, understand: Callable[[Mapping[str, Any]], object]) -> dict[str, dict[str, Any]]:
        path = self._records(part)
        try:
            records = _parse_list(path.read_bytes())
            for record in records:
                understand(record)
            return {record["id"]: record for record in records}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise StoreError(f"cannot read {path}: {error}", hint=_START_ANEW) from error

    def _check_chains(self, layers: Mapping[str, dict[str, Any]], images: Mapping[str, dict[str, Any]]) -> None:
        """One layer that is not there makes the whole store an error to Podman."""
        known = {""}
        for record in (*layers.values(), *images.values()):
            below = record["layer"] if "layer" in record else record.get("parent", "")
            if below not in known:
                raise StoreError(f"the image store {self.root} has no layer {below}", hint=_START_ANEW)
            known.add(record["id"])

    def _records(self, part: str) -> Path:
        return self.root / part / f"{_what(part)}.json"

    def _write(self, part: str, records: Mapping[str, dict[str, Any]], locks: Mapping[str, int]) -> None:
        write_atomically(self._records(part), json.dumps(list(records.values()), separators=(",", ":")).encode())
        stamp = _LAST_WRITE.pack(time.time_ns(), next(_counter), os.getpid(), os.urandom(44))
        # Through the descriptor that holds the lock: to close another one of the same file would release it.
        os.pwrite(locks[part], stamp, 0)

    @contextmanager
    def _locked(self) -> Iterator[dict[str, int]]:
        locks: dict[str, int] = {}
        try:
            for part in (_LAYERS, _IMAGES):
                locks[part] = os.open(self._lock_file(part), os.O_RDWR | os.O_CLOEXEC)
                fcntl.lockf(locks[part], fcntl.LOCK_EX)
            yield locks
        except OSError as error:
            raise store_error(f"cannot lock {self.root}", error) from error
        finally:
            for descriptor in locks.values():
                os.close(descriptor)


def set_aside(root: Path) -> None:
    """Put records that cannot be read out of Podman's way; they stay beside, as `….damaged`, for whoever asks why.

    Raises:
        StoreError: They cannot be renamed.
    """
    try:
        for part in (_IMAGES, _LAYERS):
            path = root / part / f"{_what(part)}.json"
            if path.exists():
                path.replace(path.with_suffix(".json.damaged"))
            sync_folder(path.parent)
    except OSError as error:
        raise store_error(f"cannot set the records of {root} aside", error) from error


def _parse_list(data: bytes) -> list[dict[str, Any]]:
    records = json.loads(data)
    if not isinstance(records, list):
        raise TypeError("it is no list of records")
    return records


def _what(part: str) -> str:
    return part.removeprefix("overlay-")


def _file_name(key: str) -> str:
    """As containers/storage names the file of a big datum (`images.go`, `makeBigDataBaseName`)."""
    return key if _PLAIN_NAME.fullmatch(key) else "=" + base64.b64encode(key.encode()).decode()


def _layer_json(layer: LayerRecord) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": layer.layer_id,
        "created": layer.created,
        "compressed-diff-digest": layer.digest,
        "compressed-size": layer.compressed_size,
        "diff-digest": layer.diff_id,
        "diff-size": layer.size,
        "compression": layer.compression,
    }
    return record | ({"parent": layer.parent} if layer.parent else {})


def _layer(record: Mapping[str, Any]) -> LayerRecord:
    return LayerRecord(
        layer_id=record["id"],
        parent=record.get("parent", ""),
        digest=record["compressed-diff-digest"],
        compressed_size=record["compressed-size"],
        diff_id=record["diff-digest"],
        size=record["diff-size"],
        compression=record["compression"],
        created=record["created"],
    )


def _image_json(image: ImageRecord, data: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "id": image.image_id,
        "digest": image.digest,
        "names": list(dict.fromkeys(image.names)),
        "layer": image.layer,
        "metadata": "{}",
        "big-data-names": list(data),
        "big-data-sizes": {key: len(content) for key, content in data.items()},
        "big-data-digests": {key: f"sha256:{hashlib.sha256(content).hexdigest()}" for key, content in data.items()},
        "created": image.created,
    }


def _image(record: Mapping[str, Any]) -> ImageRecord:
    return ImageRecord(
        record["id"], record["digest"], tuple(record.get("names") or ()), record["layer"], record["created"]
    )


def _without_names(record: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return record | {"names": [name for name in record.get("names") or () if name not in names]}
