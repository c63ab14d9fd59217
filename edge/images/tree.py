"""A layer's files as one flat file that is mapped, not loaded: 100,000 entries cost pages, not objects.

Layout (little endian): `_HEAD`, then one `_RECORD` for each entry, then names, link targets and extended attributes.
Entry 0 is the layer's root. Entries stand in breadth-first order, the entries of a directory together and sorted by
name, so that a name is found by bisection. A hard link has a record of its own that names the `inode` it shares.
A whiteout is what overlayfs wants to see: a character device 0:0, and `trusted.overlay.opaque` on a directory.
"""

import mmap
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, Protocol

from edge.errors import InvalidInputError, StoreError
from edge.files import write_atomically

_MAGIC: Final = b"edge-tree\x00\x00\x01"
_HEAD: Final = Struct("<12sIQI4x")
"""magic with version, number of entries, bytes of the heap, crc-32 of all that follows."""
_RECORD: Final = Struct("<QQQqIIIIIIIIIHHII")
"""size, heap offset of the name, content offset in the tar, mtime in ns, mode, uid, gid, nlink, rdev, inode, parent,
first child, children, length of the name, flags, length of the link target or 0, length of the attributes or 0."""
MAXIMUM_ENTRIES: Final = 4_000_000
_MAXIMUM_NAME: Final = 255
_MAXIMUM_PATH: Final = 4096
_MAXIMUM_TARGET: Final = 4095
_MAXIMUM_XATTR_NAME: Final = 255
_MAXIMUM_XATTR: Final = 65_536
"""linux/limits.h: what the kernel takes from anybody who unpacks a layer."""
_WHITEOUT: Final = b".wh."
_OPAQUE: Final = b".wh..wh..opq"
_OPAQUE_XATTR: Final = ("trusted.overlay.opaque", b"y")


class TarEntry(Protocol):
    """What is needed of a tar member; `edge.images.soci.values.FileMetadata` has it."""

    @property
    def name(self) -> str:
        """Its path in the archive, with `surrogateescape`."""
        ...

    @property
    def type(self) -> str:
        """One of `reg`, `dir`, `symlink`, `hardlink`, `char`, `block`, `fifo`."""
        ...

    @property
    def offset(self) -> int:
        """Of its content in the uncompressed tar."""
        ...

    @property
    def size(self) -> int:
        """Of its content."""
        ...

    @property
    def linkname(self) -> str:
        """Where a link leads."""
        ...

    @property
    def mode(self) -> int: ...  # noqa: D102

    @property
    def uid(self) -> int: ...  # noqa: D102

    @property
    def gid(self) -> int: ...  # noqa: D102

    @property
    def modified(self) -> int:
        """Nanoseconds since 1970."""
        ...

    @property
    def devmajor(self) -> int: ...  # noqa: D102

    @property
    def devminor(self) -> int: ...  # noqa: D102

    @property
    def xattrs(self) -> dict[str, bytes]: ...  # noqa: D102


_KINDS: Final = {
    "reg": stat.S_IFREG,
    "dir": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "char": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


@dataclass(slots=True, eq=False)
class _Node:
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    offset: int = 0
    modified: int = 0
    device: int = 0
    target: bytes = b""
    xattrs: dict[str, bytes] = field(default_factory=dict)
    children: "dict[bytes, _Node] | None" = None
    links: int = 0
    number: int = -1


def build_tree(entries: Iterable[TarEntry]) -> bytes:
    """Return the tree of a layer, as `LayerTree` reads it.

    A later member of the same name replaces an earlier one, as when the tar is unpacked.

    Raises:
        InvalidInputError: A path leaves the layer or leads through something that is no directory, a hard link leads
            to nothing, Linux has no such file, or there are more than `MAXIMUM_ENTRIES`.
    """
    root = _Node(stat.S_IFDIR | 0o755, children={})
    for count, entry in enumerate(entries):
        if count >= MAXIMUM_ENTRIES:
            raise InvalidInputError(f"the layer has more than {MAXIMUM_ENTRIES} entries")
        _add(root, entry)
    return _encode(root)


def _add(root: _Node, entry: TarEntry) -> None:
    parts = split_path(entry.name)
    if not parts:
        if entry.type == "dir":
            _take_metadata(root, entry)
        return
    folder = _folder(root, parts[:-1], entry.name)
    name = parts[-1]
    if name == _OPAQUE:
        key, value = _OPAQUE_XATTR
        folder.xattrs[key] = value
    elif name.startswith(_WHITEOUT):
        _hide(folder, name.removeprefix(_WHITEOUT), entry.name)
    elif entry.type == "hardlink":
        _put(folder, name, _resolve(root, entry), entry.name)
    else:
        there = _children(folder).get(name)
        if entry.type == "dir" and there is not None and there.children is not None:
            _take_metadata(there, entry)
        else:
            made = _new_folder(there) if entry.type == "dir" else _Node(_KINDS[entry.type])
            _take_metadata(made, entry)
            _put(folder, name, made, entry.name)


def _hide(folder: _Node, name: bytes, path: str) -> None:
    """A whiteout concerns the layers below only: what this layer has of that name stays."""
    there = _children(folder).get(name)
    if there is None:
        _put(folder, name, _Node(stat.S_IFCHR), path)
    elif there.children is not None:
        there.xattrs |= dict([_OPAQUE_XATTR])


def _new_folder(before: _Node | None) -> _Node:
    """A directory in the place of a whiteout hides what the layers below have of its name."""
    hidden = before is not None and _is_whiteout(before)
    return _Node(stat.S_IFDIR | 0o755, children={}, xattrs=dict([_OPAQUE_XATTR]) if hidden else {})


def _is_whiteout(node: _Node) -> bool:
    return stat.S_ISCHR(node.mode) and node.device == 0


def split_path(path: str) -> list[bytes]:
    """Return a member's path as its names; empty for the root.

    Raises:
        InvalidInputError: It leads out of the layer, or Linux has no such path.
    """
    raw = _bytes(path)
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in raw or len(raw) > _MAXIMUM_PATH or any(len(part) > _MAXIMUM_NAME for part in parts):
        raise InvalidInputError(f"the layer has an impossible path: {path[:100]!r}")
    return parts


def _folder(root: _Node, parts: list[bytes], path: str) -> _Node:
    node = root
    for part in parts:
        children = _children(node)
        found = children.get(part)
        if found is None or _is_whiteout(found):
            found = children[part] = _new_folder(found)
        if found.children is None:
            raise InvalidInputError(f"the layer's {path[:100]!r} leads through something that is no directory")
        node = found
    return node


def _children(node: _Node) -> dict[bytes, _Node]:
    if node.children is None:
        raise InvalidInputError("the layer has a path that leads through something that is no directory")
    return node.children


def _put(folder: _Node, name: bytes, node: _Node, path: str) -> None:
    if not name:
        raise InvalidInputError(f"the layer has an impossible path: {path[:100]!r}")
    _children(folder)[name] = node


def _resolve(root: _Node, entry: TarEntry) -> _Node:
    node: _Node | None = root
    for part in split_path(entry.linkname):
        node = node.children.get(part) if node is not None and node.children is not None else None
    if node is None or node.children is not None or _is_whiteout(node):
        raise InvalidInputError(f"the layer's hard link {entry.name[:100]!r} leads to no file of the layer")
    return node


def _take_metadata(node: _Node, entry: TarEntry) -> None:
    node.mode = stat.S_IFMT(node.mode) | (entry.mode & 0o7777)
    node.uid, node.gid = entry.uid & 0xFFFFFFFF, entry.gid & 0xFFFFFFFF
    node.modified = max(-(2**63), min(entry.modified, 2**63 - 1))
    opaque = {key: value for key, value in node.xattrs.items() if key == _OPAQUE_XATTR[0]}
    node.xattrs = _checked_xattrs(entry) | opaque
    if entry.type == "reg":
        if entry.size < 0 or entry.offset < 0 or entry.offset + entry.size >= 2**63:
            raise InvalidInputError(f"the layer's {entry.name[:100]!r} has an impossible size or place")
        node.size, node.offset = entry.size, entry.offset
    elif entry.type == "symlink":
        node.target = _bytes(entry.linkname)
        node.size = len(node.target)
        if not 0 < node.size <= _MAXIMUM_TARGET or b"\0" in node.target:
            raise InvalidInputError(f"the layer's symbolic link {entry.name[:100]!r} has an impossible target")
    elif entry.type in ("char", "block"):
        node.device = _device(entry.devmajor, entry.devminor)


def _checked_xattrs(entry: TarEntry) -> dict[str, bytes]:
    for key, value in entry.xattrs.items():
        name = _bytes(key)
        if not 0 < len(name) <= _MAXIMUM_XATTR_NAME or b"\0" in name or len(value) > _MAXIMUM_XATTR:
            raise InvalidInputError(
                f"the layer's {entry.name[:100]!r} has an impossible extended attribute {key[:100]!r}"
            )
    return dict(entry.xattrs)


def _bytes(text: str) -> bytes:
    # Never the process's own file system encoding: a tar's bytes are what they are.
    return text.encode("utf-8", "surrogateescape")


def _device(major: int, minor: int) -> int:
    """As the kernel's `new_encode_dev` (include/linux/kdev_t.h), which FUSE takes: 12 bits and 20 bits."""
    return (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & 0xFFF00) << 12)


def _encode(root: _Node) -> bytes:
    order: list[tuple[bytes, _Node, int]] = [(b"", root, 0)]
    spans: dict[int, tuple[int, int]] = {}
    root.number, root.links = 0, 2
    position = 0
    while position < len(order):
        _, node, _ = order[position]
        if node.children is not None:
            spans[position] = (len(order), len(node.children))
            for name in sorted(node.children):
                child = node.children[name]
                if child.number < 0:
                    child.number = len(order)
                    child.links = 2 if child.children is not None else 0
                if child.children is not None:
                    node.links += 1
                else:
                    child.links += 1
                order.append((name, child, position))
        position += 1
    heap = bytearray()
    records = bytearray()
    for position, (name, node, parent) in enumerate(order):
        first, count = spans.get(position, (0, 0))
        xattrs = _encode_xattrs(node.xattrs)
        records += _RECORD.pack(
            node.size, len(heap), node.offset, node.modified, node.mode, node.uid, node.gid, node.links, node.device,
            node.number, parent, first, count, len(name), 0, len(node.target), len(xattrs),
        )  # fmt: skip
        heap += name + node.target + xattrs
    body = bytes(records + heap)
    return _HEAD.pack(_MAGIC, len(order), len(heap), zlib.crc32(body)) + body


def _encode_xattrs(xattrs: dict[str, bytes]) -> bytes:
    out = bytearray()
    for key, value in sorted(xattrs.items()):
        name = _bytes(key)
        out += len(name).to_bytes(2, "little") + len(value).to_bytes(4, "little") + name + value
    return bytes(out)


class Record(NamedTuple):
    """One entry's fields, in `_RECORD`'s order."""

    size: int
    heap: int
    offset: int
    modified: int
    mode: int
    uid: int
    gid: int
    links: int
    device: int
    inode: int
    parent: int
    first: int
    entries: int
    name_length: int
    flags: int
    target_length: int
    xattr_length: int


class LayerTree:
    """A mapped tree; entries are numbers. Reading it needs no lock."""

    def __init__(self, path: Path) -> None:
        """Map a file that `build_tree` made.

        Raises:
            StoreError: It is not there, damaged, or of another version; make it again.
        """
        try:
            with path.open("rb") as file:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot map the layer tree {path}: {error}") from error
        magic, self.count, heap, checksum = b"", 0, 0, 0
        if len(self._data) >= _HEAD.size:
            magic, self.count, heap, checksum = _HEAD.unpack_from(self._data)
        self._heap = _HEAD.size + self.count * _RECORD.size
        whole = magic == _MAGIC and len(self._data) == self._heap + heap and self.count > 0
        if not whole or zlib.crc32(memoryview(self._data)[_HEAD.size :]) != checksum:
            self._data.close()
            raise StoreError(f"the layer tree {path} is damaged")
        # What the check has read need not stay in memory.
        self._data.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmap it."""
        self._data.close()

    def record(self, number: int) -> Record:
        """Return an entry.

        Raises:
            KeyError: There is no such entry.
        """
        if not 0 <= number < self.count:
            raise KeyError(number)
        return Record._make(_RECORD.unpack_from(self._data, _HEAD.size + number * _RECORD.size))

    def name(self, record: Record) -> bytes:
        """Return an entry's name."""
        start = self._heap + record.heap
        return self._data[start : start + record.name_length]

    def target(self, record: Record) -> bytes:
        """Return where a symbolic link leads."""
        start = self._heap + record.heap + record.name_length
        return self._data[start : start + record.target_length]

    def xattrs(self, record: Record) -> dict[bytes, bytes]:
        """Return an entry's extended attributes."""
        position = self._heap + record.heap + record.name_length + record.target_length
        end = position + record.xattr_length
        found = {}
        while position < end:
            name_length = int.from_bytes(self._data[position : position + 2], "little")
            value_length = int.from_bytes(self._data[position + 2 : position + 6], "little")
            position += 6
            value = position + name_length
            found[self._data[position:value]] = self._data[value : value + value_length]
            position = value + value_length
        return found

    def find(self, folder: Record, name: bytes) -> int | None:
        """Return the number of the entry `name` of a directory, or None."""
        low, high = folder.first, folder.first + folder.entries
        while low < high:
            middle = (low + high) // 2
            found = self.name(self.record(middle))
            if found == name:
                return middle
            if found < name:
                low = middle + 1
            else:
                high = middle
        return None

    def path(self, record: Record) -> bytes:
        """Return an entry's path from the layer's root, without a leading slash."""
        parts = []
        while record.inode != 0:
            parts.append(self.name(record))
            record = self.record(record.parent)
        return b"/".join(reversed(parts))

    def children(self, folder: Record, skip: int = 0) -> Iterator[tuple[int, Record]]:
        """Yield a directory's entries in order, without the first `skip`."""
        for number in range(folder.first + skip, folder.first + folder.entries):
            yield number, self.record(number)


def write_tree(path: Path, entries: Iterable[TarEntry]) -> None:
    """Build a layer's tree into a file.

    Raises:
        InvalidInputError: As `build_tree`.
        StoreError: It cannot be written.
    """
    write_atomically(path, build_tree(entries), mode=0o600)
