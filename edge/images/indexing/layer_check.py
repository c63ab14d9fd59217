"""One layer held against its zTOC, in one pass over the layer."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from typing import Final

from edge.errors import EdgeError, InvalidInputError, TransientError
from edge.images.indexing.build import in_pieces
from edge.images.indexing.found import load_ztoc
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import Descriptor
from edge.images.oci.references import ImageReference
from edge.images.soci.builder import LayerIndex, LayerIndexer
from edge.images.soci.checkpoints import SpanTable, span_table
from edge.images.soci.manifests import ZtocEntry, can_disable_xattrs
from edge.images.soci.span_digests import SpanDigests
from edge.images.soci.spans import inflate_span
from edge.images.soci.values import FileMetadata, Span, Ztoc

Problem = tuple[int | None, str]
"""A span's number, or None, and what is wrong."""

_MOST_TOLD: Final = 20
"""Of one layer: when it is another layer altogether, each of its spans is wrong."""


def check_layer(  # noqa: PLR0913, PLR0917 - what is held against what
    reader: ContentReader,
    reference: ImageReference,
    layer: Descriptor,
    diff_id: str,
    entry: ZtocEntry,
    progress: Callable[[int], None],
) -> list[Problem]:
    """Return what a zTOC says wrongly of its layer.

    Raises:
        EdgeError: The layer cannot be read.
    """
    try:
        ztoc = load_ztoc(reader, reference, entry)
    except TransientError:
        raise
    except EdgeError as error:
        return [(None, f"its zTOC {entry.blob.digest} cannot be used: {error}")]
    spans = _Spans(span_table(ztoc))
    truth = _Truth(ztoc, spans.table)
    done = 0
    with truth.indexer:
        for piece in in_pieces(reader.chunks(reference, layer, 0, layer.size)):
            spans.feed(piece)
            truth.feed(piece)
            progress(done := done + len(piece))
        problems = spans.finish(layer)
        if spans.whole.hexdigest() == layer.digest.removeprefix("sha256:"):
            problems += truth.compare(ztoc, entry, diff_id, spans.inflated)
    if len(problems) > _MOST_TOLD:
        problems[_MOST_TOLD:] = [(None, f"and {len(problems) - _MOST_TOLD} more")]
    return problems


class _Spans:
    """The layer as a device sees it: each span's bytes, verified, and inflated from its checkpoint."""

    def __init__(self, table: SpanTable) -> None:
        self.table = table
        self.whole = hashlib.sha256()
        self.inflated: dict[int, str] = {}
        self._problems: list[Problem] = []
        self._left = iter(table.spans)
        self._span = next(self._left, None)
        self._held = bytearray()
        self._start = 0

    def feed(self, piece: bytes) -> None:
        self.whole.update(piece)
        self._held += piece
        while (span := self._span) is not None and span.compressed_end <= self._start + len(self._held):
            self._check(
                span, bytes(self._held[span.compressed_start - self._start : span.compressed_end - self._start])
            )
            self._span = next(self._left, None)
        # What the next span begins with stays: it may share its first byte.
        done = self._span.compressed_start - self._start if self._span is not None else len(self._held)
        done = min(max(done, 0), len(self._held))
        del self._held[:done]
        self._start += done

    def _check(self, span: Span, data: bytes) -> None:
        try:
            self.inflated[span.number] = hashlib.sha256(inflate_span(self.table, span, data)).hexdigest()
        except InvalidInputError as error:
            self._problems.append((span.number, str(error)))

    def finish(self, layer: Descriptor) -> list[Problem]:
        stated = self.table.spans[-1].compressed_end
        if stated != layer.size:
            self._problems.insert(0, (None, f"its zTOC is for a layer of {stated} bytes; it has {layer.size}"))
        found = f"sha256:{self.whole.hexdigest()}"
        if found != layer.digest:
            self._problems.insert(0, (None, f"the layer itself is damaged: it has digest {found}"))
        return self._problems


class _Truth:
    """The layer inflated from its beginning."""

    def __init__(self, ztoc: Ztoc, table: SpanTable) -> None:
        self._table = table
        self._cuts = [span.uncompressed_start for span in table.spans] + [ztoc.uncompressed_size]
        self._digests = SpanDigests()
        self._broken = ""
        self.indexer = LayerIndexer(ztoc.compression, on_output=self._account)

    def feed(self, piece: bytes) -> None:
        if self._broken:
            return
        try:
            self.indexer.feed(piece)
        except InvalidInputError as error:
            self._broken = str(error)

    def _account(self, offset: int, view: memoryview) -> None:
        first, last = bisect_left(self._cuts, offset), bisect_left(self._cuts, offset + len(view))
        self._digests.feed(bytes(view), [(cut, False) for cut in self._cuts[first:last]])

    def compare(self, ztoc: Ztoc, entry: ZtocEntry, diff_id: str, inflated: Mapping[int, str]) -> list[Problem]:
        """Return what is otherwise in the layer, whose bytes are right, than the zTOC says."""
        try:
            found = self.indexer.finish() if not self._broken else None
        except InvalidInputError as error:
            found, self._broken = None, str(error)
        if found is None:
            return [(None, f"the layer cannot be read: {self._broken}")]
        self._digests.finish()
        problems = list(_contents(found, ztoc, entry, diff_id))
        for span, digest in zip_longest(self._table.spans, self._digests.digests[: len(self._table.spans)]):
            told = inflated.get(span.number)
            if span.size and told is not None and f"sha256:{told}" != digest:
                problems.append((span.number, f"span {span.number} inflates to other bytes than the layer has there"))
        return problems


def _contents(found: LayerIndex, ztoc: Ztoc, entry: ZtocEntry, diff_id: str) -> Iterator[Problem]:
    if found.diff_id != diff_id:
        yield None, f"the tar has digest {found.diff_id}, the image's configuration says {diff_id}"
    if found.ztoc.uncompressed_size != ztoc.uncompressed_size:
        yield None, f"the tar has {found.ztoc.uncompressed_size} bytes, the zTOC says {ztoc.uncompressed_size}"
    if entry.disable_xattrs and not can_disable_xattrs(found.ztoc.files):
        yield None, "the index hides extended attributes or opaque directories that the layer has (disable-xattrs)"
    for there, told in zip_longest(found.ztoc.files, ztoc.files):
        if there != told:
            yield None, _difference(there, told)


def _difference(there: FileMetadata | None, told: FileMetadata | None) -> str:
    if there is None or told is None:
        one, what = (there, "leaves out") if there is not None else (told, "lists more:")
        return f"the zTOC {what} {one.name!r}" if one is not None else ""
    pairs = [
        f"{name} {ours!r}, the zTOC says {theirs!r}"
        for name, ours, theirs in zip(FileMetadata._fields, there, told, strict=True)
        if ours != theirs
    ]
    return f"member {there.name!r} has {'; '.join(pairs)}"
