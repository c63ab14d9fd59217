"""What the mount shows: `overlay/` of an additional image store, as containers/storage's overlay driver wants it.

    l/<link> -> ../<layer id>/diff
    <layer id>/link      the link's name
    <layer id>/lower     l/<link of the parent>:l/<link of its parent>:…
    <layer id>/diff      the layer's files; once it is unpacked, a symbolic link to where

Node ids hold for ever: the upper 32 bits are the layer's slot, which is never given to another layer, the lower ones
the number of an entry of its tree. Slot 0 is the mount's own.
"""

import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

from edge.errors import StoreError
from edge.images.fuse import protocol
from edge.images.fuse.filesystem import Entry
from edge.images.tree import LayerTree, Record

_SLOT: Final = 32
_MASK: Final = (1 << _SLOT) - 1
_LINKS_FOLDER: Final = 2
"""Node of `l`, in slot 0."""
_FOLDER, _LINK_FILE, _LOWER_FILE, _SHORT, _UNPACKED, _FIRST = 0, 1, 2, 3, 4, 16
"""Of a slot: `<layer id>`, `link`, `lower`, `l/<link>`, `diff` as a symbolic link; then the tree's entries."""
_BLOCK: Final = 512


class Content(Protocol):
    """The bytes of a layer's files, some of which may not be here yet. Ranges lie inside the file and are not empty."""

    def ready(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes that can be had without waiting, or None."""
        ...

    def read(self, file: Record, offset: int, size: int) -> bytes | memoryview:
        """Return bytes, waiting for them.

        Raises:
            EdgeError: They cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class ServedLayer:
    """One layer.

    Attributes:
        slot: From 1 on; never another layer's.
        layer_id: containers/storage's chain id, 64 hexadecimal digits.
        link: Its short name, 26 of `[A-Z2-7]`.
        lower: The short names of the layers below it, the nearest first.
        tree: Its files; None when it is unpacked and no container uses them through the mount any more.
        content: Where their bytes are.
        unpacked: The path of the plain directory that `diff` leads to; empty while the layer is served from here.
    """

    slot: int
    layer_id: str
    link: str
    lower: tuple[str, ...]
    tree: LayerTree | None
    content: Content | None
    unpacked: str = ""


class OverlayNamespace:
    """`FileSystem` over a changing set of layers. `add`, `change` and `remove` may be called from any thread.

    Attributes:
        saw: Told of each read: layer, file, offset, size; None where nobody wants to know.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: dict[int, ServedLayer] = {}
        self._by_name: dict[bytes, ServedLayer] = {}
        self._by_link: dict[bytes, ServedLayer] = {}
        # Of the folders that are no layer's own; the kernel lists them anew when it is another.
        self._modified = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self.saw: Callable[[ServedLayer, Record, int, int], None] | None = None

    def add(self, *layers: ServedLayer) -> None:
        """Serve layers; one that is served already is replaced, its former slot forgotten."""
        with self._lock:
            former = {one.slot for layer in layers if (one := self._by_name.get(layer.layer_id.encode())) is not None}
            # Copies, because the server reads without the lock.
            kept = {slot: one for slot, one in self._layers.items() if slot not in former}
            self._layers = kept | {layer.slot: layer for layer in layers}
            self._by_name = self._by_name | {layer.layer_id.encode(): layer for layer in layers}
            self._by_link = self._by_link | {layer.link.encode(): layer for layer in layers}
            self._modified = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def unpack(self, layer_id: str, path: str) -> None:
        """Let `diff` lead to a plain directory from now on; nodes that are in use go on."""
        self.add(replace(self._by_name[layer_id.encode()], unpacked=path))

    def remove(self, layer_id: str) -> None:
        """Serve a layer no more."""
        with self._lock:
            gone = self._by_name[layer_id.encode()]
            # Names first: none may lead to a layer that is not there.
            self._by_link = {link: one for link, one in self._by_link.items() if one is not gone}
            self._by_name = {name: one for name, one in self._by_name.items() if one is not gone}
            self._layers = {slot: one for slot, one in self._layers.items() if one is not gone}
            self._modified = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    # --- FileSystem

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        """See `FileSystem`."""
        slot, number = parent >> _SLOT, parent & _MASK
        if slot == 0:
            return self._lookup_top(number, name)
        layer = self._layers[slot]
        if number == _FOLDER:
            node = {b"link": _LINK_FILE, b"lower": _LOWER_FILE, b"diff": _diff(layer)}.get(name)
            if node is None or (node == _LOWER_FILE and not layer.lower):
                return None
            return self._entry(name, slot << _SLOT | node)
        tree = _tree(layer)
        found = tree.find(tree.record(number - _FIRST), name)
        return None if found is None else self._tree_entry(layer, tree, found, tree.record(found))

    def _lookup_top(self, number: int, name: bytes) -> Entry | None:
        if number == _LINKS_FOLDER:
            layer = self._by_link.get(name)
            return None if layer is None else self._entry(name, layer.slot << _SLOT | _SHORT)
        if name == b"l":
            return self._entry(name, _LINKS_FOLDER)
        layer = self._by_name.get(name)
        return None if layer is None else self._entry(name, layer.slot << _SLOT | _FOLDER)

    def attributes(self, node: int) -> bytes:
        """See `FileSystem`."""
        slot, number = node >> _SLOT, node & _MASK
        if slot == 0:
            return _attributes(node, stat.S_IFDIR | 0o755, links=2, modified=self._modified)
        layer = self._layers[slot]
        match number:
            case 0:  # _FOLDER
                return _attributes(node, stat.S_IFDIR | 0o755, links=3, modified=self._modified)
            case 1 | 2:  # _LINK_FILE, _LOWER_FILE
                return _attributes(node, stat.S_IFREG | 0o644, size=len(_file(layer, number)))
            case 3 | 4:  # _SHORT, _UNPACKED
                return _attributes(node, stat.S_IFLNK | 0o777, size=len(self.link(node)))
            case _:
                return _record_attributes(node, _tree(layer).record(number - _FIRST))

    def lasts(self, node: int) -> bool:
        """See `FileSystem`: layers come and go, what is in them stays."""
        return node & _MASK >= _FIRST

    def entries(self, node: int, first: int) -> Iterator[Entry]:
        """See `FileSystem`."""
        slot, number = node >> _SLOT, node & _MASK
        if slot != 0 and number >= _FIRST:
            layer = self._layers[slot]
            tree = _tree(layer)
            for child, record in tree.children(tree.record(number - _FIRST), first):
                yield self._tree_entry(layer, tree, child, record)
            return
        names: list[bytes]
        if slot != 0:
            names = [b"diff", b"link", b"lower"] if self._layers[slot].lower else [b"diff", b"link"]
        else:
            names = sorted(self._by_link) if number == _LINKS_FOLDER else [b"l", *sorted(self._by_name)]
        for name in names[first:]:
            found = self.lookup(node, name)
            if found is not None:
                yield found

    def link(self, node: int) -> bytes:
        """See `FileSystem`."""
        layer, number = self._layers[node >> _SLOT], node & _MASK
        if number == _SHORT:
            return f"../{layer.layer_id}/diff".encode()
        if number == _UNPACKED:
            return layer.unpacked.encode()
        tree = _tree(layer)
        return tree.target(tree.record(number - _FIRST))

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """See `FileSystem`."""
        slot, number = node >> _SLOT, node & _MASK
        if slot == 0 or number < _FIRST:
            return {}
        tree = _tree(self._layers[slot])
        record = tree.record(number - _FIRST)
        return tree.xattrs(record) if record.xattr_length else {}

    def ready(self, node: int, offset: int, size: int) -> bytes | memoryview | None:
        """See `FileSystem`."""
        layer, number = self._layers[node >> _SLOT], node & _MASK
        if number < _FIRST:
            return _file(layer, number)[offset : offset + size]
        record = _tree(layer).record(number - _FIRST)
        size = max(0, min(size, record.size - offset))
        if size == 0:
            return b""
        if self.saw is not None:
            self.saw(layer, record, offset, size)
        return _content(layer).ready(record, offset, size)

    def read(self, node: int, offset: int, size: int) -> bytes | memoryview:
        """See `FileSystem`."""
        layer, number = self._layers[node >> _SLOT], node & _MASK
        record = _tree(layer).record(number - _FIRST)
        return _content(layer).read(record, offset, min(size, record.size - offset))

    def _entry(self, name: bytes, node: int) -> Entry:
        return Entry(name, node, self.attributes(node))

    def _tree_entry(self, layer: ServedLayer, tree: LayerTree, number: int, record: Record) -> Entry:
        node = layer.slot << _SLOT | (record.inode + _FIRST)
        owner = record if record.inode == number else tree.record(record.inode)
        return Entry(tree.name(record), node, _record_attributes(node, owner))


def _diff(layer: ServedLayer) -> int:
    return _UNPACKED if layer.unpacked else _FIRST


def _tree(layer: ServedLayer) -> LayerTree:
    if layer.tree is None:
        raise KeyError(layer.slot)
    return layer.tree


def _content(layer: ServedLayer) -> Content:
    if layer.content is None:
        raise StoreError(f"layer {layer.layer_id[:12]} is unpacked, and its content is not served any more")
    return layer.content


def _file(layer: ServedLayer, number: int) -> bytes:
    if number == _LINK_FILE:
        return layer.link.encode()
    return ":".join(f"l/{link}" for link in layer.lower).encode()


def _attributes(node: int, mode: int, *, size: int = 0, links: int = 1, modified: int = 0) -> bytes:
    seconds, nanoseconds = divmod(modified, 1_000_000_000)
    return protocol.ATTR.pack(
        node, size, 0, 0, seconds, seconds, 0, nanoseconds, nanoseconds, mode, links, 0, 0, 0, 4096, 0
    )


def _record_attributes(node: int, record: Record) -> bytes:
    seconds, nanoseconds = divmod(record.modified, 1_000_000_000)
    # A time before 1970 is told as the kernel reads it: 64 bits, two's complement.
    seconds &= 0xFFFFFFFFFFFFFFFF
    return protocol.ATTR.pack(
        node, record.size, -(-record.size // _BLOCK), seconds, seconds, seconds, nanoseconds, nanoseconds, nanoseconds,
        record.mode, record.links, record.uid, record.gid, record.device, 4096, 0,
    )  # fmt: skip
