"""The files of older images on this device, as far as they are here, where a newer layer's chunks may be.

A chunk is looked for in the file of the same path, first at the same place; then, since something may have been
inserted before it, among the chunks that file is cut into; then in files of the same size, which may have moved.
Whatever is found has the digest that was asked for: a file that was changed on the disk is no file.
"""

import stat
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edge.images.delta.cutting import MIN_CHUNK, cut, digest
from edge.images.tree import LayerTree, Record

_MOST_OTHERS: Final = 32
_MAPS: Final = 8
_MOST_CUT: Final = 1 << 30
"""Larger files are not cut: they would have to be read whole, for one read."""
_PIECE: Final = 4 << 20


class LocalContent(Protocol):
    """What every kind of layer can do."""

    def local(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes of a file if they are on this device, without fetching any."""
        ...


@dataclass(frozen=True, slots=True)
class OlderLayer:
    """A layer that chunks may be taken from."""

    layer_id: str
    tree: LayerTree
    content: LocalContent


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk is."""

    layer_id: str
    number: int
    offset: int


class OlderFiles:
    """Looks for chunks. Used by one thread at a time.

    Args:
        layers: Returns the layers there are, the top one of the newest image first; they may become fewer.
    """

    def __init__(self, layers: Callable[[], Sequence[OlderLayer]]) -> None:
        self._layers = layers
        self._others: dict[tuple[int, bytes], list[tuple[str, int]]] | None = None
        self._maps: OrderedDict[tuple[str, int], dict[bytes, int]] = OrderedDict()

    def find(self, path: bytes, file_size: int, offset: int, size: int, wanted: bytes) -> tuple[Place, bytes] | None:
        """Return a chunk's bytes and where they are; None if they are not here.

        Args:
            path: Of the file it is a part of.
            file_size: Of that file.
            offset: Of the chunk in it.
            size: Of the chunk.
            wanted: Its digest.
        """
        layers = {layer.layer_id: layer for layer in self._layers()}
        same = [(layer, number) for layer in layers.values() if (number := _at(layer.tree, path)) is not None]
        for layer, number in same:
            if found := self._look(layer, number, offset, size, wanted):
                return found
        for layer, number in same:
            if file_size > MIN_CHUNK and (at := self._map(layer, number).get(wanted)) is not None:
                return self._look(layer, number, at, size, wanted)
        for layer_id, number in self._others_like(tuple(layers.values()), path, file_size):
            other = layers.get(layer_id)
            if other is not None and (found := self._look(other, number, offset, size, wanted)):
                return found
        return None

    def again(self, place: Place, size: int, wanted: bytes) -> bytes | None:
        """Return the bytes of a chunk that was found, if they are there still."""
        layer = next((one for one in self._layers() if one.layer_id == place.layer_id), None)
        found = self._look(layer, place.number, place.offset, size, wanted) if layer is not None else None
        return found[1] if found else None

    def _look(
        self, layer: OlderLayer, number: int, offset: int, size: int, wanted: bytes
    ) -> tuple[Place, bytes] | None:
        record = layer.tree.record(number)
        if offset + size > record.size:
            return None
        data = layer.content.local(record, offset, size)
        if data is None or len(data) != size or digest(data) != wanted:
            return None
        return Place(layer.layer_id, number, offset), bytes(data)

    def _map(self, layer: OlderLayer, number: int) -> dict[bytes, int]:
        key = (layer.layer_id, number)
        if (known := self._maps.get(key)) is None:
            known = self._maps[key] = _chunks_of(layer, number)
            if len(self._maps) > _MAPS:
                self._maps.popitem(last=False)
        return known

    def _others_like(self, layers: Sequence[OlderLayer], path: bytes, size: int) -> list[tuple[str, int]]:
        """Files of the same size, those of the same name first."""
        if self._others is None:
            self._others = {}
            for layer in layers:
                for number in range(layer.tree.count):
                    record = layer.tree.record(number)
                    if stat.S_ISREG(record.mode) and record.inode == number and record.size:
                        for key in ((record.size, layer.tree.name(record)), (record.size, b"")):
                            same = self._others.setdefault(key, [])
                            if len(same) < _MOST_OTHERS:
                                same.append((layer.layer_id, number))
        named = self._others.get((size, path.rpartition(b"/")[2]), [])
        return named + [one for one in self._others.get((size, b""), []) if one not in named]


def likely_share(tree: LayerTree, layers: Sequence[OlderLayer]) -> float:
    """Return how many of a layer's bytes are in files that older layers have too, by path and size: nothing is read.

    A file of another size may have changed at one place only: it counts half.
    """
    total = there = 0.0
    for number in range(tree.count):
        record = tree.record(number)
        if not stat.S_ISREG(record.mode) or record.inode != number:
            continue
        path = tree.path(record)
        total += record.size
        sizes = {layer.tree.record(found).size for layer in layers if (found := _at(layer.tree, path)) is not None}
        there += record.size if record.size in sizes else min(record.size, max(sizes, default=0)) / 2
    return there / total if total else 0.0


def _chunks_of(layer: OlderLayer, number: int) -> dict[bytes, int]:
    record = layer.tree.record(number)
    if record.size > _MOST_CUT:
        return {}
    data = bytearray()
    while len(data) < record.size:
        piece = layer.content.local(record, len(data), min(_PIECE, record.size - len(data)))
        if not piece:
            return {}
        data += piece
    return {chunk.digest: at for at, chunk in cut(bytes(data))}


def _at(tree: LayerTree, path: bytes) -> int | None:
    number = 0
    for name in path.split(b"/"):
        record = tree.record(number)
        found = tree.find(record, name) if stat.S_ISDIR(record.mode) else None
        if found is None:
            return None
        number = found
    record = tree.record(number)
    return record.inode if stat.S_ISREG(record.mode) and record.size else None
