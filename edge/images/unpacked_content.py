"""The files of a layer that is unpacked, for containers that were started before it was."""

import os
from pathlib import Path

from edge.errors import StoreError
from edge.images.tree import LayerTree, Record


class UnpackedContent:
    """`Content` from plain files.

    Args:
        tree: The layer's.
        root: Where its files are.
    """

    def __init__(self, tree: LayerTree, root: Path) -> None:
        self._tree = tree
        self._root = os.fsencode(root)

    def ready(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:  # noqa: ARG002 - the port's
        """See `Content`: a disk read is waited for elsewhere."""
        return None

    def local(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes of a file, or None when it is not there any more."""
        try:
            return self.read(file, offset, size)
        except StoreError:
            return None

    def read(self, file: Record, offset: int, size: int) -> bytes | memoryview:
        """See `Content`."""
        try:
            descriptor = os.open(self._root + b"/" + self._tree.path(file), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"cannot read an unpacked layer in {os.fsdecode(self._root)}: {error.strerror}") from error
