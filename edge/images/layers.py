"""The layers this service has, on disk: what each is, its tree, its spans and what has arrived of it.

    layers/<layer id>/layer.json  tree  spans  blob  blob.map  ztoc.gz
                      recipe  recipe.from  chunks  older      instead of spans: what is taken from older layers
    unpacked/<layer id>/          plain files, once everything has arrived
    slots                         the number the next layer gets

A layer's folder is made beside and renamed when it is whole; so is an unpacked one.
"""

import json
import os
import re
import shutil
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge.errors import StoreError
from edge.files import store_error, sync_folder, write_atomically

_LAYER_ID: Final = re.compile(r"[0-9a-f]{64}")
_NEW: Final = ".new"
_OLD: Final = ".old"


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a layer is.

    Attributes:
        layer_id: Its chain id (`image_store.chain_ids`).
        slot: Its number in the mount, never another layer's.
        digest: `sha256:…` of the layer as the registry has it.
        size: Its bytes there.
        diff_id: `sha256:…` of the uncompressed tar.
        compression: As containers/storage numbers it: 0 none, 2 gzip.
        content_size: Bytes of its files.
        source: A reference by digest of an image that has it, for fetching.
        below: The layer ids of the layers below it, the nearest first.
        head: Hexadecimal; the blob's bytes before its first span, which no span has.
        own: It came without an index, and was indexed here.
        sealed: Everything read of it is what its digest says, from the first byte on: it came whole, or by an index
            that a proven manifest names. Of another one that is so once it is unpacked.
    """

    layer_id: str
    slot: int
    digest: str
    size: int
    diff_id: str
    compression: int
    content_size: int
    source: str
    below: tuple[str, ...] = ()
    head: str = ""
    own: bool = False
    sealed: bool = False


class LayerFolders:
    """The folders under a root. One process writes.

    Raises (all methods):
        StoreFullError: The disk is full; what was there is intact.
        StoreError: The folders cannot be used.
    """

    def __init__(self, root: Path) -> None:
        """Open them. What was being fetched when the power was cut goes on; what was being unpacked begins anew."""
        self._root = root
        self._last_slot = 0
        self._counting = threading.Lock()
        try:
            for folder in (root / "layers", root / "unpacked"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in (root / "unpacked").glob(f"*{_NEW}"):
                shutil.rmtree(left)
        except OSError as error:
            raise store_error(f"cannot use {root}", error) from error

    def folder(self, layer_id: str) -> Path:
        """Return where a layer is, or would be."""
        return self._root / "layers" / layer_id

    def unpacked(self, layer_id: str) -> Path:
        """Return where its plain files are, or would be."""
        return self._root / "unpacked" / layer_id

    def facts(self) -> list[LayerFacts]:
        """Return the layers that are whole; a folder that cannot be read is removed and the layer fetched anew."""
        found: dict[int, LayerFacts] = {}
        for folder in sorted((self._root / "layers").iterdir()):
            if folder.name.endswith(_NEW):
                continue
            facts: LayerFacts | None
            try:
                told = json.loads((folder / "layer.json").read_bytes())
                facts = LayerFacts(**told | {"below": tuple(told["below"])})
            except (OSError, ValueError, TypeError, KeyError):
                facts = None
            if facts is None or not _is_of(facts, folder) or facts.slot in found:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                found[facts.slot] = facts
        self._last_slot = max((self._last_slot, *found))
        return list(found.values())

    def begin(self, layer_id: str) -> Path:
        """Return a folder to make a layer in; it may hold the beginning of `blob` already."""
        folder = self._root / "layers" / f"{layer_id}{_NEW}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise store_error(f"cannot make {folder}", error) from error
        return folder

    def finish(self, made: Path, facts: LayerFacts) -> None:
        """Put a layer into force that was made in `begin`'s folder."""
        write_atomically(made / "layer.json", json.dumps(asdict(facts)).encode())
        try:
            made.rename(self.folder(facts.layer_id))
        except OSError as error:
            raise store_error(f"cannot keep layer {facts.layer_id[:12]}", error) from error
        sync_folder(made.parent)

    def replace(self, made: Path, facts: LayerFacts) -> None:
        """Put a layer into force that was made in `begin`'s folder, in the place of the one that is there."""
        aside = self._root / "layers" / f"{facts.layer_id}{_OLD}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            # If the power goes between the two, the layer is lost, and its image pulled again.
            self.folder(facts.layer_id).rename(aside)
        except OSError as error:
            raise store_error(f"cannot replace layer {facts.layer_id[:12]}", error) from error
        self.finish(made, facts)
        shutil.rmtree(aside, ignore_errors=True)

    def begin_unpacking(self, layer_id: str) -> Path:
        """Return an empty folder to unpack into; `finish_unpacking` puts it into force."""
        folder = self._root / "unpacked" / f"{layer_id}{_NEW}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o755)
        except OSError as error:
            raise store_error(f"cannot make {folder}", error) from error
        return folder

    def finish_unpacking(self, made: Path, layer_id: str) -> Path:
        """Put an unpacked layer into force, and drop the bytes it was made from."""
        target = self.unpacked(layer_id)
        try:
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
        except OSError as error:
            raise store_error(f"cannot keep the unpacked layer {layer_id[:12]}", error) from error
        if not self.folder(layer_id).exists():
            shutil.rmtree(target, ignore_errors=True)
            raise StoreError(f"layer {layer_id[:12]} was removed while it was unpacked")
        sync_folder(target.parent)
        for name in ("blob", "blob.map", "chunks"):
            (self.folder(layer_id) / name).unlink(missing_ok=True)
        return target

    def give_up_unpacking(self, layer_id: str) -> None:
        """Remove what there is of a half-unpacked layer."""
        shutil.rmtree(self._root / "unpacked" / f"{layer_id}{_NEW}", ignore_errors=True)

    def half_made(self) -> list[str]:
        """Return the layers that are being made, or were when the service ended."""
        return [folder.name.removesuffix(_NEW) for folder in (self._root / "layers").glob(f"*{_NEW}")]

    def give_up(self, layer_id: str) -> None:
        """Remove what there is of a half-made layer."""
        shutil.rmtree(self._root / "layers" / f"{layer_id}{_NEW}", ignore_errors=True)

    def remove(self, layer_id: str) -> None:
        """Remove a layer and its plain files."""
        for folder in (self.folder(layer_id), self.unpacked(layer_id)):
            shutil.rmtree(folder, ignore_errors=True)

    def next_slot(self) -> int:
        """Return a number no layer has had."""
        path = self._root / "slots"
        # Two layers of one number would show each other's files: several are made at the same time, and the file may
        # be lost, or put back from a backup.
        with self._counting:
            try:
                stated = int(path.read_text()) if path.exists() else 1
            except (OSError, ValueError) as error:
                raise StoreError(f"cannot read {path}: {error}", hint="Remove the image store.") from error
            number = max(stated, self._last_slot + 1)
            write_atomically(path, str(number + 1).encode())
            self._last_slot = number
            return number


def _is_of(facts: LayerFacts, folder: Path) -> bool:
    slot: object = facts.slot  # as it was read: it may be anything
    return (
        isinstance(slot, int)
        and slot > 0
        and _LAYER_ID.fullmatch(folder.name) is not None
        and folder.name == facts.layer_id
    )


def free_bytes(path: Path) -> tuple[int, int]:
    """Return what is free for us on `path`'s file system, and its size."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
