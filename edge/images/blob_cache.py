"""A layer as the registry has it, in a sparse file that fills in any order.

Which spans are there stands in a map of one byte each, beside the file. Neither is synced: a span is checked against
its digest whenever it is inflated, so that after a power cut a span that is not what it was counts as missing. A layer
costs the flash its compressed bytes once.
"""

import mmap
import os
import threading
import weakref
from pathlib import Path
from typing import Final

from edge.files import store_error
from edge.images.soci.values import Span

_THERE: Final = b"\x01"
_MISSING: Final = b"\x00"


class BlobCache:
    """The file `blob` and the map `blob.map` of a layer's folder. Usable from any thread.

    Raises (all methods):
        StoreFullError: The disk is full; nothing was recorded.
        StoreError: The files cannot be used.
    """

    def __init__(self, folder: Path, size: int, spans: int) -> None:
        """Open the cache of a layer of `size` bytes and `spans` spans; one of other sizes is begun anew."""
        self.path = folder / "blob"
        self._size = size
        self._lock = threading.Lock()
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            map_file = os.open(folder / "blob.map", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(self._file).st_size != size or os.fstat(map_file).st_size != spans:
                    os.truncate(map_file, 0)
                    os.truncate(map_file, spans)
                    os.truncate(self._file, size)
                self._map = mmap.mmap(map_file, spans)
            finally:
                os.close(map_file)
        except OSError as error:
            raise store_error(f"cannot open the cache {folder}", error) from error
        self._left = spans - self._map[:].count(_THERE)
        # Reads may be under way when the layer is unpacked and this cache forgotten: the last of them closes it.
        weakref.finalize(self, os.close, self._file)

    def has(self, span: int) -> bool:
        """Say whether a span is there, as far as is known."""
        return self._map[span : span + 1] == _THERE

    @property
    def missing(self) -> int:
        """How many spans are not there."""
        return self._left

    def next_missing(self, start: int) -> int | None:
        """Return the first span from `start` on that is not there, or None."""
        found = self._map.find(_MISSING, start)
        return None if found < 0 else found

    def put(self, span: Span, data: bytes) -> None:
        """Keep a span that was verified."""
        try:
            os.pwrite(self._file, data, span.compressed_start)
        except OSError as error:
            raise store_error(f"cannot keep a span in {self.path}", error) from error
        with self._lock:
            if not self.has(span.number):
                self._map[span.number : span.number + 1] = _THERE
                self._left -= 1

    def get(self, span: Span) -> bytes:
        """Return a span's compressed bytes, unverified."""
        try:
            return os.pread(self._file, span.compressed_end - span.compressed_start, span.compressed_start)
        except OSError as error:
            raise store_error(f"cannot read {self.path}", error) from error

    def drop(self, span: int) -> None:
        """A span turned out to be wrong: it counts as missing."""
        with self._lock:
            if self.has(span):
                self._map[span : span + 1] = _MISSING
                self._left += 1
