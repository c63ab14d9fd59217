"""The files of a layer that is put together from older images and from what of it is new.

The layer's `blob` holds its tar, sparse: headers from the beginning, chunks as they are fetched. A chunk that is not
there is looked for in the older images, and fetched when it is not there either. Whatever is shown has the digest that
the recipe lists for it; that the recipe is the layer's is proved by the tar's digest when all is here.
"""

import stat
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final

from edge.errors import InvalidInputError, RegistryUnavailableError, StoreError, TransientError
from edge.images.blob_cache import BlobCache
from edge.images.delta.chunk_file import ChunkTable
from edge.images.delta.cutting import digest
from edge.images.delta.older import OlderFiles, Place
from edge.images.inflated import InflatedSpans
from edge.images.lazy_content import BlobSource
from edge.images.pulse import Pulse
from edge.images.soci.checkpoints import WINDOW_BYTES
from edge.images.soci.spans import Inflater
from edge.images.soci.values import Compression, Span
from edge.images.tree import LayerTree, Record

_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 15.0
_MISMATCHES: Final = 3
_RUN: Final = 2 << 20
"""Of the tar, by one request: whoever else waits waits for no more."""


def runs_of(missing: Iterable[int], starts: Sequence[int], sizes: Sequence[int]) -> Iterator[range]:
    """Yield the chunks that are fetched together, of those that are not here."""
    run = range(0)
    for number in missing:
        near = run and number == run[-1] + 1 and starts[number] - starts[run[-1]] - sizes[run[-1]] <= WINDOW_BYTES
        if near and starts[number] + sizes[number] - starts[run[0]] <= _RUN:
            run = range(run[0], number + 1)
            continue
        if run:
            yield run
        run = range(number, number + 1)
    if run:
        yield run


class DeltaContent:
    """`Content` of one layer.

    Args:
        layer_id: Told in messages, and the key of chunks in memory.
        tree: The layer's files.
        table: Its chunks.
        cache: The tar, with what was fetched; its spans are the chunks.
        older: Where else chunks may be.
        inflated: Shared by all layers.
        source: Where the layer itself is.
        pulse: Shared by all layers.
        read_seconds: How long a read waits for a registry that is away, before it fails.
        told: Told of what went wrong, in a sentence.

    Attributes:
        damaged: How often a chunk that had been here was found to be wrong or gone.
        fetched: Compressed bytes that were fetched since the service started.
    """

    def __init__(  # noqa: PLR0913 - one for each thing it works with
        self,
        layer_id: str,
        *,
        tree: LayerTree,
        table: ChunkTable,
        cache: BlobCache,
        older: OlderFiles,
        inflated: InflatedSpans,
        source: BlobSource,
        pulse: Pulse,
        read_seconds: float,
        told: Callable[[str], None],
    ) -> None:
        self.layer_id = layer_id
        self.table = table
        self.cache = cache
        self.damaged = 0
        self.fetched = 0
        self._mismatches: dict[int, int] = {}
        self._tree = tree
        self._older = older
        self._inflated = inflated
        self._source = source
        self._pulse = pulse
        self._read_seconds = read_seconds
        self._told = told
        self._files = tuple(
            sorted(
                (record.offset, number)
                for number in range(tree.count)
                if (record := tree.record(number)).inode == number and record.size and stat.S_ISREG(record.mode)
            )
        )
        self._looking = threading.Lock()
        self._fetching = threading.Lock()
        self._places: dict[int, Place] = {}
        self._absent = bytearray(table.count)
        self._wanted = bytearray(table.count)

    # --- Content

    def ready(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """See `Content`: what is in memory."""
        return self._joined(file, offset, size, lambda number: self._inflated.get((self.layer_id, number)))

    def read(self, file: Record, offset: int, size: int) -> bytes | memoryview:
        """See `Content`."""
        found = self._joined(file, offset, size, self._have)
        if found is None:
            raise AssertionError
        return found

    def local(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """See `LocalContent`: what was fetched; what came from an older layer is looked for there."""
        return self._joined(file, offset, size, self._cached)

    def _joined(
        self, file: Record, offset: int, size: int, get: Callable[[int], bytes | memoryview | None]
    ) -> bytes | memoryview | None:
        start = file.offset + offset
        parts = []
        for number in self.table.covering(start, start + size):
            data = get(number)
            if data is None:
                return None
            first = self.table.starts[number]
            parts.append(data[max(start - first, 0) : start + size - first])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- chunks

    @property
    def here(self) -> int:
        """Compressed bytes that need not come any more, as a share of the layer's."""
        count = self.table.count
        settled = sum(1 for number in range(count) if number in self._places or self.cache.has(number))
        return self.table.compressed_size * settled // max(count, 1)

    @property
    def wanted(self) -> int:
        """What containers have read since this service started, as a share of the layer's compressed bytes."""
        size = sum(size for size, wanted in zip(self.table.sizes, self._wanted, strict=True) if wanted)
        return self.table.compressed_size * size // self.table.tar_size

    def _have(self, number: int) -> bytes | memoryview:
        """Return a chunk, wherever it has to come from.

        Raises:
            EdgeError: It cannot be had.
        """
        self._wanted[number] = 1
        deadline = time.monotonic() + self._read_seconds
        pause = _FIRST_PAUSE
        while True:
            found = self._here(number)
            if found is not None:
                return found
            try:
                with self._pulse:
                    found = self.fetch(self.run_from(number))
            except TransientError as error:
                if self.false or time.monotonic() + pause > deadline:
                    raise
                self._told(str(error))
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                if found is not None:
                    return found

    def _here(self, number: int) -> bytes | memoryview | None:
        key = (self.layer_id, number)
        found = self._inflated.get(key) or self._cached(number)
        if found is None:
            found = self._from_older(number)
        if found is not None:
            self._inflated.put(key, memoryview(found))
        return found

    def _cached(self, number: int) -> bytes | None:
        if not self.cache.has(number):
            return None
        data = self.cache.get(self._span(number))
        if digest(data) == self.table.digest(number):
            return data
        # Verified before it was kept: the disk has lost it since, as after a power cut.
        self.damaged += 1
        self.cache.drop(number)
        return None

    def _from_older(self, number: int) -> bytes | None:
        if self._absent[number]:
            return None
        size, wanted = self.table.sizes[number], self.table.digest(number)
        with self._looking:
            place = self._places.get(number)
            if place is not None:
                data = self._older.again(place, size, wanted)
                if data is not None:
                    return data
                self.damaged += 1
                self._places.pop(number, None)
            start = self.table.starts[number]
            owner = bisect_right(self._files, (start, self._tree.count)) - 1
            if owner >= 0:
                file_start, entry = self._files[owner]
                record = self._tree.record(entry)
                path = self._tree.path(record)
                found = self._older.find(path, record.size, start - file_start, size, wanted)
                if found is not None:
                    self._places[number] = found[0]
                    return found[1]
            self._absent[number] = 1
            return None

    def _span(self, number: int) -> Span:
        start, end = self.table.starts[number], self.table.end(number)
        return Span(number, start, end, start, end, 0, "")

    # --- fetching

    def settle(self, number: int) -> bool:
        """Look whether a chunk is here, in the layer itself or an older one."""
        return self.cache.has(number) or number in self._places or self._from_older(number) is not None

    def place(self, number: int) -> Place | None:
        """Return where in an older layer a chunk was found."""
        return self._places.get(number)

    def keep(self, number: int) -> bool:
        """Take a chunk that an older layer has into this one."""
        data = self._from_older(number)
        if data is None:
            return False
        self.cache.put(self._span(number), data)
        return True

    def look_through(self) -> None:
        """Check every chunk against its digest, and let go of the wrong ones."""
        for number in range(self.table.count):
            if self._cached(number) is None:
                self._from_older(number)

    def run_from(self, number: int) -> range:
        """Return the chunks to fetch with one that is not here: those behind it as far as they are not here either."""
        missing = takewhile(lambda one: one == number or not self.settle(one), range(number, self.table.count))
        return next(runs_of(missing, self.table.starts, self.table.sizes))

    def fetch(self, run: range) -> bytes | None:
        """Fetch adjacent chunks that are not here; return the first.

        Raises:
            EdgeError: They cannot be had.
        """
        with self._fetching:
            while run and self.cache.has(run[0]):
                found = self._cached(run[0])
                if found is not None:
                    return found
            return self._fetch(run)

    def _fetch(self, run: range) -> bytes | None:
        start, end = self.table.starts[run[0]], self.table.end(run[-1])
        first: bytes | None = None
        number = None
        held, at = bytearray(), 0
        for position, piece in self._tar_from(run[0], start, end):
            if number is None:
                number = bisect_left(self.table.starts, position)
                at = position
            held += piece
            while number < self.table.count and self.table.end(number) <= at + len(held):
                begin = self.table.starts[number] - at
                data = bytes(held[begin : begin + self.table.sizes[number]])
                self._keep(number, data)
                if number == run[0]:
                    first = data
                number += 1
            if number >= self.table.count or self.table.starts[number] >= end:
                break
            drop = min(self.table.starts[number] - at, len(held))
            del held[:drop]
            at += drop
        return first

    def _keep(self, number: int, data: bytes) -> None:
        if digest(data) != self.table.digest(number):
            raise self._wrong(number)
        self._mismatches.pop(number, None)
        self._inflated.put((self.layer_id, number), memoryview(data))
        try:
            self.cache.put(self._span(number), data)
        except StoreError as error:
            # It is served from memory while it stays there, and fetched again when it is needed again.
            self._told(str(error))

    @property
    def false(self) -> bool:
        """Whether other bytes came for a chunk again and again: it is the recipe that is wrong."""
        return any(count >= _MISMATCHES for count in self._mismatches.values())

    def _wrong(self, number: int) -> RegistryUnavailableError:
        # A damaged transfer may be right next time.
        self._mismatches[number] = self._mismatches.get(number, 0) + 1
        return RegistryUnavailableError(
            f"layer {self.layer_id[:12]}: other bytes came than its recipe lists", reason="CannotPullContainerError"
        )

    def _tar_from(self, wanted: int, start: int, end: int) -> Iterator[tuple[int, memoryview | bytes]]:
        """Yield the tar from `start` or before to `end` or behind, from the layer's own bytes."""
        if self.table.compression is Compression.UNCOMPRESSED:
            position = start
            for piece in self._source.chunks(start, end - start):
                yield position, piece
                position += len(piece)
                self.fetched += len(piece)
            return
        points = self.table.points
        index = bisect_right(points, start, key=lambda point: point.uncompressed) - 1
        # The bytes before a place may have gone with an older image: then it is entered farther back, at worst at the
        # beginning, which needs none.
        while (window := self._window(points[index].uncompressed)) is None:
            index -= 1
        last = bisect_left(points, end, key=lambda point: point.uncompressed)
        while index < last:
            # As much at once as memory is used for it.
            upto = index + 1
            while upto < last and points[upto].uncompressed - points[index].uncompressed < _RUN:
                upto += 1
            position, data = points[index].uncompressed, self._leg(wanted, index, upto, window)
            yield position, data
            window = (window + bytes(data[-WINDOW_BYTES:]))[-WINDOW_BYTES:]
            index = upto

    def _leg(self, number: int, index: int, upto: int, window: bytes) -> memoryview:
        """Fetch and inflate what lies between two places."""
        points, begin = self.table.points, self.table.points[index]
        last = upto == len(points)
        end = self.table.compressed_size if last else points[upto].compressed
        tar_end = self.table.tar_size if last else points[upto].uncompressed
        start = begin.compressed - (begin.bits > 0)
        inflater = Inflater(Span(0, start, end, begin.uncompressed, tar_end, begin.bits, ""), window)
        for piece in self._source.chunks(start, end - start):
            self.fetched += len(piece)
            inflater.feed(piece)
        try:
            return inflater.finish()
        except InvalidInputError as error:
            raise self._wrong(number) from error

    def _window(self, position: int) -> bytes | None:
        """Return the 32 KiB of the tar before a place, or None when they are not here."""
        start = max(0, position - WINDOW_BYTES)
        out = bytearray(self.cache.get(Span(0, start, position, start, position, 0, "")))
        for number in self.table.covering(start, position):
            data = self._here(number)
            if data is None:
                return None
            first = self.table.starts[number]
            begin, end = max(first, start), min(first + len(data), position)
            out[begin - start : end - start] = data[begin - first : end - first]
        return bytes(out).rjust(WINDOW_BYTES, b"\0")
