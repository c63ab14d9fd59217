"""A layer all of whose chunks are here becomes a plain directory, proved by its tar's digest."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError, TransientError
from edge.files import write_atomically
from edge.images.delta.chunk_file import read_chunk_file
from edge.images.delta.content import DeltaContent
from edge.images.delta.older import Place
from edge.images.unpack import DamagedLayerError, unpack_pieces

_PLAN: Final = "plan"
_PIECE: Final = 1 << 20


def write_plan(folder: Path, content: DeltaContent, path_of: Callable[[Place], bytes | None]) -> int:
    """Say where each chunk is: a file's number and an offset in it, or None for the layer's own tar.

    Args:
        folder: The layer's.
        content: The layer, all of whose chunks are here.
        path_of: Returns the plain file that has a chunk; None when it is in none, and is taken into the tar.

    Returns:
        How many bytes come from plain files.

    Raises:
        TransientError: A chunk has gone.
        StoreError: It cannot be written.
    """
    numbers: dict[bytes, int] = {}
    places: list[tuple[int, int] | None] = []
    elsewhere = 0
    for number in range(content.table.count):
        place = content.place(number)
        path = path_of(place) if place is not None else None
        if place is not None and path is not None:
            places.append((numbers.setdefault(path, len(numbers)), place.offset))
            elsewhere += content.table.sizes[number]
            continue
        if not content.cache.has(number) and not content.keep(number):
            # Where one is gone, others are: all are looked for anew.
            content.look_through()
            raise TransientError(f"layer {content.layer_id[:12]}: what was here of an older image is not any more")
        places.append(None)
    files = [path.decode("utf-8", "surrogateescape") for path in numbers]
    write_atomically(folder / _PLAN, json.dumps({"files": files, "places": places}, separators=(",", ":")).encode())
    return elsewhere


def rebuild(folder: Path, target: Path, diff_id: str) -> None:
    """Write a layer's files into `target`, an empty directory, and sync it.

    Args:
        folder: The layer's, with a plan.
        target: Where to.
        diff_id: `sha256:…` of the tar.

    Raises:
        DamagedLayerError: What is here is not the layer.
        StoreError: The files cannot be written here.
    """
    try:
        unpack_pieces(_tar(folder), folder / "tree", target, lambda diff: (("tar", diff, diff_id),))
    except InvalidInputError as error:
        # The disk has lost headers: what is there is not even a tar.
        raise DamagedLayerError(str(error)) from error
    (folder / _PLAN).unlink()


def _tar(folder: Path) -> Iterator[bytes]:
    table = read_chunk_file(folder / "chunks")
    plan = json.loads((folder / _PLAN).read_bytes())
    files = _Files(folder / "blob", plan["files"])
    try:
        position = 0
        for start, size, place in zip(table.starts, table.sizes, plan["places"], strict=True):
            yield from files.read(-1, position, start - position)
            number, offset = place or (-1, start)
            yield from files.read(number, offset, size)
            position = start + size
        yield from files.read(-1, position, table.tar_size - position)
    finally:
        files.close()


class _Files:
    """The tar, as number -1, and the files of older layers, one open at a time."""

    def __init__(self, blob: Path, names: Sequence[str]) -> None:
        self._blob = os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
        self._names = names
        self._open, self._number = -1, -1

    def read(self, number: int, offset: int, size: int) -> Iterator[bytes]:
        while size:
            piece = os.pread(self._descriptor(number), min(size, _PIECE), offset)
            if not piece:
                raise DamagedLayerError("a file that parts of the layer were to come from is shorter now")
            yield piece
            offset, size = offset + len(piece), size - len(piece)

    def _descriptor(self, number: int) -> int:
        if number < 0:
            return self._blob
        if number != self._number:
            self._close_file()
            try:
                # Escaped as Python does for names that are not UTF-8.
                name = self._names[number].encode("utf-8", "surrogateescape")
                self._open = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                raise DamagedLayerError(f"a file that parts of the layer were to come from is gone: {error}") from error
            self._number = number
        return self._open

    def _close_file(self) -> None:
        if self._open >= 0:
            os.close(self._open)
        self._open, self._number = -1, -1

    def close(self) -> None:
        self._close_file()
        os.close(self._blob)
