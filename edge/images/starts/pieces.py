"""What came in start bundles, on disk: bytes of layers' tars, one after the other in the order in which they are read.

    bundles/<image id>/map       which bytes of which layers, and the digest of each block of 64 KiB
    bundles/<image id>/payload   the bytes, without gaps

Neither block nor map is synced: a block is checked against its digest before it is first shown by a process. What is
wrong or missing comes by the layer's spans, as if there had been no bundle.
"""

import hashlib
import json
import os
import secrets
import shutil
import struct
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError, StoreError
from edge.files import store_error, write_atomically
from edge.images.namespace import Content
from edge.images.pulse import Pulse
from edge.images.starts.places import TarRange
from edge.images.tree import Record

BLOCK: Final = 64 << 10
DIGEST_BYTES: Final = 32
RANGE: Final = struct.Struct("<IQQ")
"""Layer, start, end."""
_MAGIC: Final = b"EDGEMAP1"
_HEADER: Final = struct.Struct("<8sI32s")
_UNKNOWN, _GOOD, _BAD = 0, 1, 2


class Payload:
    """The bytes of one bundle, as they arrive. Usable from any thread; one thread writes.

    Attributes:
        arriving: More will come.
        unwanted: Nobody needs more of it.

    Raises (all methods):
        StoreFullError: The disk is full.
        StoreError: The file cannot be used.
    """

    def __init__(self, path: Path, size: int, digests: bytes) -> None:
        """Open what there is of it."""
        self._size = size
        self._digests = digests
        self._state = bytearray(len(digests) // DIGEST_BYTES)
        self._changed = threading.Condition()
        self._partial = bytearray()
        self._written = 0
        self._waiting = 0
        self.arriving = False
        self.unwanted = False
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._there = os.fstat(self._file).st_size
        except OSError as error:
            raise store_error(f"cannot open {path}", error) from error
        # Reads may be under way when its image is removed: the last of them closes it.
        weakref.finalize(self, os.close, self._file)

    def take(self, data: bytes) -> None:
        """Take the next bytes; of a block that is not what the bundle's head says nothing is used.

        Raises:
            InvalidInputError: There is such a block.
        """
        self._partial += data
        while len(self._partial) >= BLOCK or self._written + len(self._partial) == self._size:
            block = bytes(self._partial[:BLOCK])
            if not block:
                return
            number = self._written // BLOCK
            if hashlib.sha256(block).digest() != self._digest(number):
                raise InvalidInputError("a part of it has another digest than its head says")
            try:
                os.pwrite(self._file, block, self._written)
            except OSError as error:
                raise store_error("cannot keep what came in a start bundle", error) from error
            self._written += len(block)
            del self._partial[:BLOCK]
            with self._changed:
                self._there = max(self._there, self._written)
                self._state[number] = _GOOD
                if self._waiting:
                    self._changed.notify_all()

    def end(self) -> None:
        """No more will come."""
        with self._changed:
            self.arriving = False
            self._changed.notify_all()

    def wait_for_end(self) -> None:
        """Return when no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: not self.arriving)

    def check_whole(self) -> None:
        """Say that this was all.

        Raises:
            InvalidInputError: It was not.
        """
        if self._written < self._size:
            raise InvalidInputError("it holds less than its head says")

    def read(self, start: int, end: int) -> bytes | None:
        """Return bytes that are here and right, or None."""
        for number in range(start // BLOCK, -(-end // BLOCK)):
            if self._state[number] != _GOOD and not self._is_good(number):
                return None
        try:
            return os.pread(self._file, end - start, start)
        except OSError:
            return None

    def wait(self, start: int, end: int, seconds: float) -> bytes | None:
        """Return bytes once they have come; None when they will not, or not so soon."""
        deadline = time.monotonic() + seconds
        last = -(-end // BLOCK) - 1
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(
                    lambda: not self.arriving or self._state[last] != _UNKNOWN, deadline - time.monotonic()
                )
            finally:
                self._waiting -= 1
        return self.read(start, end)

    def _digest(self, number: int) -> bytes:
        return self._digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]

    def _is_good(self, number: int) -> bool:
        """Look at a block that a process before this one wrote."""
        end = min(self._size, (number + 1) * BLOCK)
        if self._state[number] == _BAD or self.arriving or end > self._there:
            return False
        try:
            data = os.pread(self._file, end - number * BLOCK, number * BLOCK)
        except OSError:
            return False
        self._state[number] = _GOOD if hashlib.sha256(data).digest() == self._digest(number) else _BAD
        return self._state[number] == _GOOD


class LayerPieces:
    """Which bytes of one layer's tar a payload holds, and where."""

    def __init__(self, payload: Payload, places: Sequence[tuple[int, int, int]]) -> None:
        """Args: the payload, and (start, end, offset in the payload) of each range."""
        self.payload = payload
        self.places = sorted(places)
        self._starts = [start for start, _, _ in self.places]

    @property
    def last(self) -> int:
        """Where the last of them ends, 0 if there are none."""
        return max((end for _, end, _ in self.places), default=0)

    def parts(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return where bytes of the tar are in the payload, in order; nothing if it does not hold them all."""
        found: list[tuple[int, int]] = []
        at = bisect_right(self._starts, start) - 1
        while 0 <= at < len(self.places) and start < end:
            first, last, offset = self.places[at]
            if not first <= start < last:
                return []
            stop = min(end, last)
            found.append((offset + start - first, offset + stop - first))
            start = stop
            at += 1
        return found if start >= end else []


class BundledContent:
    """`Content` of a layer of which a bundle holds a part; all else, and what is not as it should be, as without.

    Args:
        pieces: What the bundle holds.
        rest: The layer's content otherwise.
        pulse: Told of each read, so that what nobody waits for leaves a start alone.
        seconds: How long is waited for the bundle, before the layer's spans are asked.
    """

    def __init__(self, pieces: LayerPieces, rest: Content, pulse: Pulse, seconds: float) -> None:
        self._pieces = pieces
        self._rest = rest
        self._pulse = pulse
        self._seconds = seconds

    def ready(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """See `Content`."""
        start = file.offset + offset
        payload = self._pieces.payload
        self._pulse.last = time.monotonic()
        found = [payload.read(*part) for part in self._pieces.parts(start, start + size)]
        data = _joined(found)
        return data if data is not None else self._rest.ready(file, offset, size)

    def read(self, file: Record, offset: int, size: int) -> bytes | memoryview:
        """See `Content`."""
        start = file.offset + offset
        payload = self._pieces.payload
        if payload.arriving:
            parts = self._pieces.parts(start, start + size)
            data = _joined([payload.wait(*part, self._seconds) for part in parts])
            self._pulse.last = time.monotonic()
            if data is not None:
                return data
        return self._rest.read(file, offset, size)


def _joined(parts: Sequence[bytes | None]) -> bytes | None:
    if len(parts) == 1:
        return parts[0]
    there = [part for part in parts if part is not None]
    return b"".join(there) if parts and len(there) == len(parts) else None


class Bundles:
    """What came in bundles, of all images here. One process writes.

    Args:
        root: The service's state directory.
        told: Told of what cannot be used.
    """

    def __init__(self, root: Path, told: Callable[[str], None]) -> None:
        self._root = root / "bundles"
        self._told = told
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[str, LayerPieces]] = {}
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(f"cannot make {self._root}", error) from error
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith("."):
                folder.unlink(missing_ok=True)
                continue
            try:
                self._register(folder.name, load(folder))
            except StoreError as error:
                # Only what makes a start faster: its layers come by their spans.
                told(str(error))
                shutil.rmtree(folder, ignore_errors=True)

    def begin(self, image_id: str, layer_ids: Sequence[str], ranges: Sequence[TarRange], digests: bytes) -> Payload:
        """Make place for a bundle, instead of one that is there.

        Raises:
            StoreError: There is none.
        """
        self.remove(image_id)
        folder = self.folder(image_id)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise store_error(f"cannot make {folder}", error) from error
        write_map(folder, layer_ids, ranges, digests)
        pieces = load(folder)
        payload = next(iter(pieces.values())).payload
        payload.arriving = True
        self._register(image_id, pieces)
        return payload

    def temporary(self) -> Path:
        """Return a place for a file that nobody else has."""
        return self._root / f".{secrets.token_hex(8)}.head"

    def folder(self, image_id: str) -> Path:
        """Return where an image's bundle is, or would be."""
        return self._root / image_id

    def pieces(self, layer_id: str) -> LayerPieces | None:
        """Return what a bundle holds of a layer."""
        found = self._layers.get(layer_id)
        return None if found is None else found[1]

    def claims(self, layer_id: str) -> str:
        """Return the folder of the bundle that holds bytes of a layer; empty for none."""
        found = self._layers.get(layer_id)
        return "" if found is None else str(self.folder(found[0]))

    def layers_beside(self, layer_id: str) -> tuple[str, ...]:
        """Return the layers of the image whose bundle holds bytes of a layer; none if there is no such bundle."""
        image_id = self._layers.get(layer_id, ("", None))[0]
        return tuple(key for key, (owner, _) in self._layers.items() if owner == image_id) if image_id else ()

    def proved(self, layer_id: str) -> None:
        """A layer and all beside it are unpacked: what a bundle brought of them is not needed any more."""
        found = self._layers.get(layer_id)
        if found is not None:
            self.remove(found[0])

    def remove(self, image_id: str) -> None:
        """Forget an image's bundle; who reads it reads on."""
        with self._lock:
            for owner, pieces in self._layers.values():
                pieces.payload.unwanted = pieces.payload.unwanted or owner == image_id
            self._layers = {key: one for key, one in self._layers.items() if one[0] != image_id}
        shutil.rmtree(self.folder(image_id), ignore_errors=True)

    def image_ids(self) -> set[str]:
        """Return the images that have one."""
        return {image_id for image_id, _ in self._layers.values()}

    def _register(self, image_id: str, pieces: dict[str, LayerPieces]) -> None:
        with self._lock:
            self._layers = self._layers | {key: (image_id, one) for key, one in pieces.items()}


def write_map(folder: Path, layer_ids: Sequence[str], ranges: Sequence[TarRange], digests: bytes) -> None:
    """Write a bundle's map."""
    facts = json.dumps({"layers": list(layer_ids), "ranges": len(ranges)}).encode()
    body = facts + b"".join(RANGE.pack(*one) for one in ranges) + digests
    write_atomically(folder / "map", _HEADER.pack(_MAGIC, len(facts), hashlib.sha256(body).digest()) + body)


def load(folder: Path) -> dict[str, LayerPieces]:
    """Open what a folder holds, by layer id.

    Raises:
        StoreError: It is damaged.
    """
    try:
        data = (folder / "map").read_bytes()
        magic, length, digest = _HEADER.unpack_from(data)
        body = data[_HEADER.size :]
        if magic != _MAGIC or hashlib.sha256(body).digest() != digest:
            raise ValueError("its digest is wrong")  # noqa: TRY301 - one way out for all that may be wrong
        facts = json.loads(body[:length])
        end = length + facts["ranges"] * RANGE.size
        ranges = list(RANGE.iter_unpack(body[length:end]))
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise StoreError(f"the start bundle in {folder} is damaged: {error}") from error
    places: dict[str, list[tuple[int, int, int]]] = {layer_id: [] for layer_id in facts["layers"]}
    offset = 0
    for layer, first, last in ranges:
        places[facts["layers"][layer]].append((first, last, offset))
        offset += last - first
    payload = Payload(folder / "payload", offset, body[end:])
    return {layer_id: LayerPieces(payload, found) for layer_id, found in places.items()}


class Claims:
    """What a bundle said of a layer, held against the layer's bytes as they come by.

    Attributes:
        false: Where in the tar the first difference is; None while there is none.
    """

    def __init__(self, pieces: LayerPieces) -> None:
        self._pieces = pieces
        self._places = iter(pieces.places)
        self._place = next(self._places, None)
        self.false: int | None = None

    def take(self, position: int, piece: bytes | memoryview) -> None:
        """Take the tar's bytes from `position` on."""
        end = position + len(piece)
        while self._place is not None and self.false is None:
            first, last, offset = self._place
            start, stop = max(first, position), min(last, end)
            if start < stop:
                self._compare(start, piece[start - position : stop - position], offset + start - first)
            if last > end:
                return
            self._place = next(self._places, None)

    def _compare(self, start: int, right: bytes | memoryview, offset: int) -> None:
        # Block by block: what did not come, or was lost since, was not shown.
        for at in range(offset - offset % BLOCK, offset + len(right), BLOCK):
            first, last = max(at, offset), min(at + BLOCK, offset + len(right))
            told = self._pieces.payload.read(first, last)
            if told is not None and told != right[first - offset : last - offset]:
                self.false = start + first - offset
                return
