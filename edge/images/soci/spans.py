"""Inflate one span of a layer, verified, from its checkpoint."""

import hashlib
from typing import Final, assert_never

from edge.errors import InvalidInputError
from edge.images.soci.checkpoints import SpanTable
from edge.images.soci.libz import GZIP, NO_FLUSH, RAW, InflateStream, OutputBuffer
from edge.images.soci.values import Compression, Span

_TRAILER_BYTES: Final = 8
"""A gzip member ends in a CRC and a length (RFC 1952), which a raw stream leaves unread."""


def verify_span(span: Span, compressed: bytes) -> None:
    """Check a span's compressed bytes against its digest.

    Raises:
        InvalidInputError: They are not what the zTOC describes.
    """
    taker = SpanDigester(span)
    taker.feed(compressed)
    taker.finish()


def inflate_span(table: SpanTable, span: Span, compressed: bytes) -> memoryview:
    """Return a span's uncompressed bytes, exactly `span.size`, from its compressed bytes.

    Raises:
        InvalidInputError: The bytes do not have the span's digest, or do not inflate to its size.
    """
    taker = SpanInflater(table, span)
    taker.feed(compressed)
    return taker.finish()


class SpanDigester:
    """Verifies a span as it arrives."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._whole = hashlib.sha256()
        self._count = 0

    def feed(self, piece: bytes) -> None:
        """Take the next of the span's compressed bytes."""
        self._whole.update(piece)
        self._count += len(piece)

    def finish(self) -> memoryview | None:
        """Say that these were all.

        Raises:
            InvalidInputError: They are not what the zTOC describes.
        """
        span = self._span
        stated = span.compressed_end - span.compressed_start
        if self._count != stated:
            raise InvalidInputError(
                f"span {span.number} has {self._count} bytes, the zTOC says {stated}",
                hint="Fetch compressed_start to before compressed_end of the layer.",
            )
        found = self._whole.hexdigest()
        if f"sha256:{found}" != span.digest:
            raise InvalidInputError(
                f"span {span.number} has digest sha256:{found}, the zTOC says {span.digest}",
                hint="The registry sent other bytes, or the index belongs to another layer.",
            )
        return None


class SpanInflater(SpanDigester):
    """Verifies and inflates a span as it arrives, so that hardly anything is left to do at its end."""

    def __init__(self, table: SpanTable, span: Span) -> None:
        super().__init__(span)
        match table.compression:
            case Compression.UNCOMPRESSED:
                self._inflater: Inflater | _Copier = _Copier(span)
            case Compression.GZIP:
                self._inflater = Inflater(span, bytes(table.windows[span.number]))
            case _:
                assert_never(table.compression)

    def feed(self, piece: bytes) -> None:
        """Take the next of the span's compressed bytes."""
        super().feed(piece)
        self._inflater.feed(piece)

    def finish(self) -> memoryview:
        """Say that these were all, and return the uncompressed bytes.

        Raises:
            InvalidInputError: They are not what the zTOC describes.
        """
        super().finish()
        return self._inflater.finish()


class _Copier:
    def __init__(self, span: Span) -> None:
        self._size = span.size
        self._data = bytearray()

    def feed(self, piece: bytes) -> None:
        self._data += piece

    def finish(self) -> memoryview:
        return memoryview(self._data).toreadonly()[: self._size]


class Inflater:
    """Inflates a span as it arrives, unverified, given the 32 KiB before it."""

    def __init__(self, span: Span, window: bytes) -> None:
        self._span = span
        # One byte more than nothing: a buffer has an address.
        self._buffer = OutputBuffer(max(span.size, 1))
        self._stream = InflateStream(RAW)
        self._window = window
        self._begun = False
        self._written = 0
        self._trailer = _TRAILER_BYTES
        self._problem: InvalidInputError | None = None

    def feed(self, piece: bytes) -> None:
        """Take the next of the span's compressed bytes."""
        if self._problem is not None or not piece:
            return
        self._stream.feed(piece)
        if not self._begun:
            self._begun = True
            if self._span.bits:
                self._stream.skip(1)
                self._stream.prime(self._span.bits, piece[0] >> (8 - self._span.bits))
            self._stream.set_window(self._window)
        try:
            self._inflate()
        except InvalidInputError as error:
            # Told once the digest is known to be right: otherwise that is what is wrong.
            self._problem = error

    def _inflate(self) -> None:
        size = self._span.size
        while self._written < size and self._stream.remaining:
            if self._stream.ended:
                self._trailer -= self._stream.skip(self._trailer)
                if self._trailer:
                    return
                self._stream.restart(GZIP)
                continue
            self._written += self._stream.inflate(self._buffer, self._written, size, NO_FLUSH)

    def finish(self) -> memoryview:
        """Say that these were all, and return the uncompressed bytes.

        Raises:
            InvalidInputError: They do not inflate to the span's size.
        """
        size = self._span.size
        self._stream.close()
        if self._problem is not None:
            raise self._problem
        if self._written != size:
            raise InvalidInputError(f"span {self._span.number} inflates to {self._written} bytes, the zTOC says {size}")
        return self._buffer.view[:size].toreadonly()
