"""Windows that are fetched when a span must be inflated: a start bundle leaves them out, and most starts need none."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, overload

from edge.errors import EdgeError, ImagePullError, InvalidInputError, TransientError
from edge.files import write_atomically
from edge.images.oci.documents import Descriptor
from edge.images.soci.checkpoints import SpanTable, span_table
from edge.images.soci.compact import MAX_COMPACT_BYTES, unpack_ztoc
from edge.images.soci.ztoc import read_ztoc
from edge.images.span_file import open_span_file, write_span_file

_MARK: Final = "windows.json"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0


def mark(folder: Path, ztoc: Descriptor) -> None:
    """Note in a layer's folder that its table of spans has no windows, and which zTOC has them."""
    write_atomically(folder / _MARK, json.dumps({"digest": ztoc.digest, "size": ztoc.size}).encode())


def table_of(
    folder: Path, fetch: Callable[[Descriptor, int], bytes], told: Callable[[str], None], seconds: float
) -> SpanTable:
    """Open a layer's table of spans; windows that are not there are fetched when one is needed.

    Args:
        folder: The layer's.
        fetch: Returns a blob of at most so many bytes, verified.
        told: Told of what went wrong, in a sentence.
        seconds: How long who needs one waits for a registry that is away.

    Raises:
        StoreError: It is damaged.
    """
    table = open_span_file(folder / "spans")
    if not (folder / _MARK).exists():
        return table
    late = _LateWindows(folder, table, fetch, told, seconds)
    return SpanTable(table.compression, table.spans, late, tuple(span.uncompressed_start for span in table.spans))


class _LateWindows(Sequence[bytes | memoryview]):
    def __init__(
        self,
        folder: Path,
        table: SpanTable,
        fetch: Callable[[Descriptor, int], bytes],
        told: Callable[[str], None],
        seconds: float,
    ) -> None:
        self._folder = folder
        self._table = table
        self._fetch = fetch
        self._told = told
        self._seconds = seconds
        self._lock = threading.Lock()
        self._windows: Sequence[bytes | memoryview] | None = None

    def __len__(self) -> int:
        return len(self._table.spans)

    @overload
    def __getitem__(self, index: int) -> bytes | memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | memoryview]: ...
    def __getitem__(self, index: int | slice) -> bytes | memoryview | Sequence[bytes | memoryview]:
        if self._windows is None:
            with self._lock:
                if self._windows is None:
                    self._windows = self._patiently()
        return self._windows[index]

    def _patiently(self) -> Sequence[bytes | memoryview]:
        deadline, pause = time.monotonic() + self._seconds, _FIRST_PAUSE
        while True:
            try:
                return self._load()
            except TransientError as error:
                if time.monotonic() + pause > deadline:
                    raise
                self._told(str(error))
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _load(self) -> Sequence[bytes | memoryview]:
        try:
            named = json.loads((self._folder / _MARK).read_bytes())
            data = self._fetch(Descriptor("", named["digest"], named["size"]), MAX_COMPACT_BYTES)
            found = span_table(read_ztoc(unpack_ztoc(data)))
            if (found.compression, found.spans) != (self._table.compression, self._table.spans):
                raise InvalidInputError("it cuts the layer into other spans than the bundle")
            write_span_file(self._folder / "spans", found)
        except TransientError:
            raise
        except (EdgeError, OSError, ValueError, KeyError, TypeError) as error:
            # Not the span's fault: it must not be taken for one that is damaged.
            raise ImagePullError(
                f"the zTOC that the start bundle names cannot be used: {error}",
                reason="CannotPullContainerError",
                hint="Build the bundle anew: edge image bundle push.",
            ) from error
        (self._folder / _MARK).unlink(missing_ok=True)
        return open_span_file(self._folder / "spans").windows
