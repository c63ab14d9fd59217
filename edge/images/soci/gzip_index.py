"""Find checkpoints in a gzip stream while it is inflated once.

The rule is SOCI's (that of zlib's `examples/zran.c`): a checkpoint after the gzip header, then one at each block
boundary that comes more than a span after the checkpoint before, never before a last block. Boundaries nearer than a
span cannot become one, so zlib is asked to stop at boundaries only behind that; until then it runs undisturbed.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Final

from edge.errors import InvalidInputError
from edge.images.soci.checkpoints import MAX_SPANS, WINDOW_BYTES, Checkpoint
from edge.images.soci.libz import BLOCK, GZIP, NO_FLUSH, InflateStream, OutputBuffer

OUTPUT_BYTES: Final = 512 << 10
"""Handed over at once: large enough to call zlib rarely, small enough for a second-level cache."""


_TRAILER = struct.Struct("<II")
"""A gzip member's end: CRC-32 and size modulo 2^32 of its content (RFC 1952)."""


class MemberCheck:
    """Compares gzip members with their trailers, away from the thread that inflates them."""

    def __init__(self) -> None:
        self._crc = self._size = 0

    def feed(self, content: memoryview) -> None:
        """Take the next piece of the member's content."""
        self._crc = zlib.crc32(content, self._crc)
        self._size += len(content)

    def end(self, trailer: bytes) -> None:
        """Take the member's trailer; what is fed next belongs to another member.

        Raises:
            InvalidInputError: It does not fit the content.
        """
        if trailer != _TRAILER.pack(self._crc, self._size & 0xFFFF_FFFF):
            raise InvalidInputError("the compressed data is damaged: incorrect data check", hint="Download it again.")
        self._crc = self._size = 0


class GzipCheckpointer:
    """Takes a gzip stream in pieces, hands its output on, and collects checkpoints.

    Args:
        span_size: Uncompressed bytes that must lie between two checkpoints.
        output: Receives each piece of output. The view is valid until `buffers` - 1 more calls have been made.
        member_end: Receives a member's trailer, unchecked, after its output.
        buffers: How many output buffers take turns.
        limit: Output bytes after which the stream is refused.
        entry_distance: Uncompressed bytes between two `entries`; 0 for none.

    Attributes:
        points: The checkpoints so far.
        entries: Block boundaries nearer than that, without what lies before them: compressed and uncompressed offset
            and bits, as a checkpoint's.
        total_out: Output bytes so far.
    """

    def __init__(  # noqa: PLR0913 - what an index may differ in
        self,
        span_size: int,
        output: Callable[[memoryview], None],
        member_end: Callable[[bytes], None],
        *,
        buffers: int,
        limit: int,
        entry_distance: int = 0,
    ) -> None:
        self.points: list[Checkpoint] = []
        self.entries: list[tuple[int, int, int]] = []
        self._entry_distance = entry_distance
        self.total_out = 0
        self._span_size = span_size
        self._output = output
        self._member_end = member_end
        self._limit = limit
        self._stream = InflateStream(GZIP, checked=False)
        self._data = self._tail = b""
        # Each buffer begins with the 32 KiB before its own output, so that a window is always one slice.
        self._buffers = [OutputBuffer(WINDOW_BYTES + OUTPUT_BYTES) for _ in range(buffers)]
        self._turn = 0
        self._handed = self._at = WINDOW_BYTES
        self._total_in = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece of the stream.

        Raises:
            InvalidInputError: The stream is damaged, or larger than the limit.
        """
        self._total_in += len(data)
        self._tail = (self._tail + self._data[-_TRAILER.size :])[-_TRAILER.size :]
        self._data = data
        self._stream.feed(data)
        while self._stream.remaining:
            if self._stream.ended:
                self._stream.restart(GZIP)
            self._step()
            if self._at == WINDOW_BYTES + OUTPUT_BYTES or self._stream.ended:
                self._hand_over()
            if self._stream.ended:
                self._member_end(self._trailer())
        self._hand_over()

    def finish(self) -> None:
        """Say that the stream is at its end, and free zlib's memory.

        Raises:
            InvalidInputError: It breaks off.
        """
        ended = self._stream.ended
        self.close()
        if not ended:
            raise InvalidInputError("the layer's gzip stream breaks off", hint="Download it again.")

    def close(self) -> None:
        """Free zlib's memory."""
        self._stream.close()

    def _step(self) -> None:
        end = WINDOW_BYTES + OUTPUT_BYTES
        flush = BLOCK
        if self.total_out:
            until = self._next_boundary() - self.total_out
            if until > 0:
                end, flush = min(end, self._at + until), NO_FLUSH
        written = self._stream.inflate(self._buffers[self._turn], self._at, end, flush)
        self._at += written
        self.total_out += written
        if self.total_out > self._limit:
            raise InvalidInputError(f"the layer inflates to more than {self._limit} bytes")
        if flush == BLOCK and not self._stream.ended and self._stream.at_block_start:
            self._consider()

    def _next_boundary(self) -> int:
        """Up to where no block boundary matters."""
        place = self.points[-1].uncompressed + self._span_size
        return min(place, self.entries[-1][1] + self._entry_distance) if self._entry_distance else place

    def _consider(self) -> None:
        if self._entry_distance and (not self.total_out or self.total_out - self.entries[-1][1] > self._entry_distance):
            compressed = self._total_in - self._stream.remaining
            self.entries.append((compressed, self.total_out, self._stream.unused_bits))
        if not self.total_out or self.total_out - self.points[-1].uncompressed > self._span_size:
            if len(self.points) == MAX_SPANS:
                raise InvalidInputError(
                    f"the layer has more than {MAX_SPANS} spans of {self._span_size} bytes",
                    hint="Choose a larger span size.",
                )
            window = bytes(self._buffers[self._turn].view[self._at - WINDOW_BYTES : self._at])
            compressed = self._total_in - self._stream.remaining
            self.points.append(Checkpoint(compressed, self.total_out, self._stream.unused_bits, window))

    def _trailer(self) -> bytes:
        end = len(self._data) - self._stream.remaining
        return (self._tail + self._data[max(0, end - _TRAILER.size) : end])[-_TRAILER.size :]

    def _hand_over(self) -> None:
        if self._at == self._handed:
            return
        before = self._buffers[self._turn].view
        self._output(before[self._handed : self._at].toreadonly())
        self._handed = self._at
        if self._at < WINDOW_BYTES + OUTPUT_BYTES // 2:
            return
        self._turn = (self._turn + 1) % len(self._buffers)
        self._buffers[self._turn].view[:WINDOW_BYTES] = before[self._at - WINDOW_BYTES : self._at]
        self._handed = self._at = WINDOW_BYTES
