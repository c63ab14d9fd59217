"""Index a layer in one pass: table of contents, checkpoints, span digests, the layer's digest and its DiffID.

Inflating is the work; everything else is done beside it, in a helper thread for what goes in and one for what comes
out (zlib and hashlib let other threads run), and in a process for the windows (much of that is Python, which does not),
so that an index costs hardly more than inflating the layer once.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from edge.errors import InvalidInputError
from edge.images.soci.checkpoints import (
    MAX_SPAN_BYTES,
    MAX_SPANS,
    Checkpoint,
    span_table,
    write_gzip_checkpoints,
    write_tar_checkpoints,
)
from edge.images.soci.gzip_index import GzipCheckpointer, MemberCheck
from edge.images.soci.span_digests import SpanDigests
from edge.images.soci.tar_scan import TarScanner
from edge.images.soci.thinning import WindowThinner
from edge.images.soci.values import DEFAULT_BUILD_TOOL, DEFAULT_SPAN_SIZE, Compression, FileMetadata, Ztoc
from edge.images.soci.worker import Worker

MAX_UNCOMPRESSED_BYTES: Final = 16 << 30
"""A layer that inflates to more is refused: its checkpoints alone would fill a small device's memory."""

_MIN_SPAN_BYTES: Final = 1 << 15
_WAITING: Final = 3


@dataclass(frozen=True, slots=True)
class LayerIndex:
    """What one pass over a layer finds.

    Attributes:
        layer_digest: `sha256:<hex>` of the layer as it is in the registry.
        diff_id: `sha256:<hex>` of the whole uncompressed tar, padding included.
        uncompressed_size: Bytes of the whole uncompressed tar, padding included.
    """

    ztoc: Ztoc
    layer_digest: str
    diff_id: str
    uncompressed_size: int


class LayerIndexer:
    """Takes a layer in pieces, as it arrives, and indexes it. A context manager.

    Args:
        compression: The layer's, from its media type.
        span_size: Uncompressed bytes between checkpoints.
        build_tool: Written into the zTOC.
        on_output: Receives (offset, bytes) of the uncompressed tar, each piece once, in order, in a helper thread; the
            view is valid only during the call. Members up to there are in `files` by then.
        limit: Uncompressed bytes after which the layer is refused.
        thin: Leave out of the windows what their spans do not refer to (`thin_windows`).
        entry_distance: As for `GzipCheckpointer`.
    """

    def __init__(  # noqa: PLR0913 - what an index may differ in
        self,
        compression: Compression,
        *,
        span_size: int = DEFAULT_SPAN_SIZE,
        build_tool: str = DEFAULT_BUILD_TOOL,
        on_output: Callable[[int, memoryview], None] | None = None,
        limit: int = MAX_UNCOMPRESSED_BYTES,
        thin: bool = False,
        entry_distance: int = 0,
    ) -> None:
        if not _MIN_SPAN_BYTES <= span_size <= MAX_SPAN_BYTES:
            raise InvalidInputError(f"a span size is {_MIN_SPAN_BYTES} to {MAX_SPAN_BYTES} bytes, not {span_size}")
        self._compression = compression
        self._span_size = span_size
        self._build_tool = build_tool
        self._on_output = on_output
        self._limit = limit
        self._scanner = TarScanner()
        self._digests = SpanDigests()
        self._thinner = WindowThinner() if thin and compression is Compression.GZIP else None
        self._diff = hashlib.sha256()
        self._uncompressed = 0
        self._cuts = 0
        self._tar_size = 0
        self._input = Worker("layer-input", _WAITING)
        self._output = Worker("layer-output", _WAITING)
        self._member = MemberCheck()
        self._gzip = GzipCheckpointer(
            span_size,
            lambda view: self._output.put(lambda: self._account_inflated(view)),
            lambda trailer: self._output.put(lambda: self._member.end(trailer)),
            # As many pieces of output can be out of hand as wait, plus the one in work; one more is being filled.
            buffers=_WAITING + 2,
            limit=limit,
            entry_distance=entry_distance,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def files(self) -> list[FileMetadata]:
        """The members found so far; it grows while the layer is fed."""
        return self._scanner.files

    @property
    def points(self) -> list[Checkpoint]:
        """The gzip checkpoints found so far; it grows while the layer is fed."""
        return self._gzip.points

    @property
    def entries(self) -> list[tuple[int, int, int]]:
        """Where else its gzip stream can be entered, as `GzipCheckpointer` has them."""
        return self._gzip.entries

    def feed(self, data: bytes) -> None:
        """Take the next piece of the layer.

        Raises:
            InvalidInputError: The layer is damaged, too large, or cannot be described by a zTOC.
        """
        if self._compression is Compression.GZIP:
            self._gzip.feed(data)
            points = self._gzip.points[self._cuts :]
            cuts = [(point.compressed, point.bits > 0) for point in points]
            if self._thinner is not None:
                thinner = self._thinner
                self._input.put(lambda: thinner.feed(data, points))
        else:
            view = memoryview(data)
            self._output.put(lambda: self._account(view))
            cuts = self._tar_cuts(len(data))
        self._cuts += len(cuts)
        self._input.put(lambda: self._digests.feed(data, cuts))

    def finish(self) -> LayerIndex:
        """Say that the layer is at its end.

        Raises:
            InvalidInputError: It breaks off, or its checkpoints cannot be used.
        """
        if self._compression is Compression.GZIP:
            self._gzip.finish()
        self._input.finish()
        self._output.finish()
        self._scanner.finish()
        self._digests.finish()
        ztoc = Ztoc(
            compressed_size=self._digests.size,
            uncompressed_size=self._scanner.end,
            files=tuple(self._scanner.files),
            compression=self._compression,
            max_span_id=len(self._digests.digests) - 1,
            span_digests=tuple(self._digests.digests),
            checkpoints=self._checkpoints(),
            build_tool=self._build_tool,
        )
        span_table(ztoc)
        whole, diff = self._digests.whole.hexdigest(), self._diff.hexdigest()
        return LayerIndex(ztoc, f"sha256:{whole}", f"sha256:{diff}", self._uncompressed)

    def close(self) -> None:
        """Stop the helper threads and free memory; nothing more can be fed."""
        self._input.stop()
        self._output.stop()
        self._gzip.close()
        if self._thinner is not None:
            self._thinner.close()

    def _tar_cuts(self, count: int) -> list[tuple[int, bool]]:
        first, self._tar_size = self._cuts * self._span_size, self._tar_size + count
        if self._tar_size > min(self._limit, MAX_SPANS * self._span_size):
            raise InvalidInputError(
                f"the layer is larger than {self._limit} bytes or {MAX_SPANS} spans of {self._span_size} bytes",
                hint="Choose a larger span size, or leave the layer without an index.",
            )
        return [(offset, False) for offset in range(first, self._tar_size, self._span_size)]

    def _account_inflated(self, view: memoryview) -> None:
        self._member.feed(view)
        self._account(view)

    def _account(self, view: memoryview) -> None:
        self._scanner.feed(view)
        self._diff.update(view)
        if self._on_output is not None:
            self._on_output(self._uncompressed, view)
        self._uncompressed += len(view)

    def _checkpoints(self) -> bytes:
        if self._compression is Compression.GZIP:
            points: Sequence[Checkpoint] = self._gzip.points
            if self._thinner is not None:
                thin = self._thinner.finish()
                points = [point._replace(window=window) for point, window in zip(points, thin, strict=True)]
            return write_gzip_checkpoints(points, self._span_size)
        return write_tar_checkpoints(self._span_size, self._digests.size)


def build_layer_index(
    layer: Iterable[bytes],
    compression: Compression,
    *,
    span_size: int = DEFAULT_SPAN_SIZE,
    build_tool: str = DEFAULT_BUILD_TOOL,
    thin: bool = False,
) -> LayerIndex:
    """Index a whole layer from its bytes, in pieces of any size (half a MiB is a good one).

    Raises:
        InvalidInputError: The layer is damaged, too large, or cannot be described by a zTOC.
    """
    with LayerIndexer(compression, span_size=span_size, build_tool=build_tool, thin=thin) as indexer:
        for piece in layer:
            indexer.feed(piece)
        return indexer.finish()
