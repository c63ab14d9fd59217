"""A file system whose every byte a test knows, and whose content comes only when the test lets it."""

import itertools
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge.errors import EdgeError
from edge.images.fuse import protocol
from edge.images.fuse.filesystem import Entry


@dataclass(slots=True, eq=False)
class Node:
    """A file, a symbolic link or a directory."""

    number: int
    mode: int
    data: bytes = b""
    size: int = 0
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    children: dict[bytes, int] = field(default_factory=dict)


class KnownFiles:
    """`FileSystem`. Content in `waiting` nodes comes after `arrived` is set; reads of `failing` ones raise in turn.

    Attributes:
        asked: Released once for each `read` that begins.
        changing: Directories that the kernel is told to ask for each time.
    """

    def __init__(self) -> None:
        self.nodes = {protocol.ROOT: Node(protocol.ROOT, stat.S_IFDIR | 0o755)}
        self._numbers = itertools.count(1 << 32)
        self.waiting: set[int] = set()
        self.failing: dict[int, list[Exception]] = {}
        self.arrived = threading.Event()
        self.asked = threading.Semaphore(0)
        self.changing: set[int] = set()

    def add(self, path: str, data: bytes = b"", mode: int = stat.S_IFREG | 0o644, size: int = -1) -> Node:
        """Add a file; a `size` makes it one of `pattern`."""
        folder = self.nodes[protocol.ROOT]
        *parents, name = path.encode().split(b"/")
        for part in parents:
            if part not in folder.children:
                folder.children[part] = self._make(stat.S_IFDIR | 0o755, b"", 0).number
            folder = self.nodes[folder.children[part]]
        made = self._make(mode, data, len(data) if size < 0 else size)
        folder.children[name] = made.number
        return made

    def _make(self, mode: int, data: bytes, size: int) -> Node:
        made = Node(next(self._numbers), mode, data, size)
        self.nodes[made.number] = made
        return made

    # --- FileSystem

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        number = self.nodes[parent].children.get(name)
        return None if number is None else Entry(name, number, self.attributes(number))

    def attributes(self, node: int) -> bytes:
        one = self.nodes[node]
        times = (1_700_000_000 + len(one.children),) * 3
        return protocol.ATTR.pack(
            node, one.size, -(-one.size // 512), *times, 1, 2, 3, one.mode, 1, 1000, 2000, 0, 4096, 0
        )

    def lasts(self, node: int) -> bool:
        return node not in self.changing

    def entries(self, node: int, first: int) -> Iterator[Entry]:
        for name in sorted(self.nodes[node].children)[first:]:
            found = self.lookup(node, name)
            assert found is not None
            yield found

    def link(self, node: int) -> bytes:
        return self.nodes[node].data

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        return self.nodes[node].xattrs

    def ready(self, node: int, offset: int, size: int) -> bytes | None:
        one = self.nodes[node]
        if (node in self.waiting and not self.arrived.is_set()) or self.failing.get(node):
            return None
        return one.data[offset : offset + size] if one.data else pattern(offset, min(size, one.size - offset))

    def read(self, node: int, offset: int, size: int) -> bytes:
        self.asked.release()
        if self.failing.get(node):
            raise self.failing[node].pop(0)
        if not self.arrived.wait(60):
            raise EdgeError("the test did not let the content come")
        data = self.ready(node, offset, size)
        assert data is not None
        return data


def pattern(offset: int, size: int) -> bytes:
    """Content that tells its own place: each 8 bytes hold their number."""
    first, last = offset // 8, -(-(offset + size) // 8)
    whole = b"".join(number.to_bytes(8, "little") for number in range(first, last))
    return whole[offset - first * 8 :][: max(0, size)]
