"""What a `FuseServer` serves: a tree of nodes that hardly ever change, addressed by 64-bit node ids.

A node id means the same for ever, over restarts as well: the kernel keeps ids for as long as a container runs.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Entry(NamedTuple):
    """One name in a directory.

    Attributes:
        name: Without slashes or NUL.
        node: The node it leads to; two names of one file lead to the same.
        attributes: The node's packed `protocol.ATTR`.
    """

    name: bytes
    node: int
    attributes: bytes


class FileSystem(Protocol):
    """Answers from memory, but for `read`.

    A node that is not known raises `KeyError`, which the kernel sees as ESTALE.
    """

    def lookup(self, parent: int, name: bytes) -> Entry | None:
        """Return what `name` leads to in a directory, or None."""
        ...

    def attributes(self, node: int) -> bytes:
        """Return the packed `protocol.ATTR` of a node."""
        ...

    def lasts(self, node: int) -> bool:
        """Whether what is told of a node, and of the names in it, holds for ever.

        Of a directory that does not last the kernel asks each time; its listing is asked for anew when its time of
        modification is another one.
        """
        ...

    def entries(self, node: int, first: int) -> Iterator[Entry]:
        """Yield a directory's entries from the `first` on, in an order that does not change, without `.` and `..`."""
        ...

    def link(self, node: int) -> bytes:
        """Return where a symbolic link leads."""
        ...

    def xattrs(self, node: int) -> dict[bytes, bytes]:
        """Return a node's extended attributes."""
        ...

    def ready(self, node: int, offset: int, size: int) -> bytes | memoryview | None:
        """Return content that can be had without waiting, cut at the end of the file; None when it cannot."""
        ...

    def read(self, node: int, offset: int, size: int) -> bytes | memoryview:
        """Return content, waiting for it. Called from many threads.

        Raises:
            EdgeError: It cannot be had; the reader gets EIO.
        """
        ...
