"""The index of a layer that came without one, kept once the layer is unpacked: for `edge image index push --kept`.

It is made where nobody waits for it: while the layer is unpacked its tar is read once more anyway, and the compressed
bytes, which thin windows need, are still here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError, StoreError
from edge.files import write_atomically
from edge.images.soci.checkpoints import Checkpoint, SpanTable, write_gzip_checkpoints, write_tar_checkpoints
from edge.images.soci.compact import pack_ztoc, unpack_ztoc
from edge.images.soci.thin_windows import ENOUGH, thinned
from edge.images.soci.values import Compression, FileMetadata, Ztoc
from edge.images.soci.ztoc import read_ztoc, write_ztoc
from edge.images.span_file import open_span_file

OWN_SPAN_SIZE: Final = 1 << 20
"""Of layers indexed here: they are whole already, so only memory and time per read count."""

_NAME: Final = "ztoc.gz"


def kept_index(folder: Path) -> Path:
    """Return where a layer's index is, if it is kept."""
    return folder / _NAME


def keep_index(folder: Path, files: Sequence[FileMetadata]) -> None:
    """Keep the index of a layer whose table of spans and blob are in `folder`.

    Args:
        folder: The layer's.
        files: Its tar's members, in tar order.

    Raises:
        StoreFullError: The disk is full.
        StoreError: What is there cannot be read.
    """
    table = open_span_file(folder / "spans")
    last = table.spans[-1]
    ztoc = Ztoc(
        compressed_size=last.compressed_end,
        uncompressed_size=last.uncompressed_end,
        files=tuple(files),
        compression=table.compression,
        max_span_id=last.number,
        span_digests=tuple(span.digest for span in table.spans),
        checkpoints=_checkpoints(table, folder / "blob"),
    )
    write_atomically(kept_index(folder), pack_ztoc(write_ztoc(ztoc)))


def read_kept_index(path: Path) -> tuple[bytes, Ztoc]:
    """Return a kept index, packed, and what it says.

    Raises:
        StoreError: It cannot be read, or is damaged.
    """
    try:
        packed = path.read_bytes()
        return packed, read_ztoc(unpack_ztoc(packed))
    except (OSError, InvalidInputError) as error:
        raise StoreError(
            f"the index in {path} cannot be used: {error}", hint="Push without --kept: the layer is read again."
        ) from error


def _checkpoints(table: SpanTable, path: Path) -> bytes:
    if table.compression is Compression.UNCOMPRESSED:
        return write_tar_checkpoints(OWN_SPAN_SIZE, table.spans[-1].compressed_end)
    points = []
    try:
        with path.open("rb") as blob:
            for span, window in zip(table.spans, table.windows, strict=True):
                blob.seek(span.compressed_start)
                place = span.compressed_start + (span.bits > 0)
                point = Checkpoint(place, span.uncompressed_start, span.bits, window)
                points.append(point._replace(window=thinned(point, blob.read(ENOUGH))))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    return write_gzip_checkpoints(points, OWN_SPAN_SIZE)
