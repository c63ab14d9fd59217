"""The files of a layer that has not arrived: spans are fetched when they are read, and in the background.

One lock and one condition for each layer. A span is fetched by one thread at a time; whoever wants it too waits for
that one. Nothing is shown that was not checked against the span's digest, and the digests stand in the zTOC, which was
checked against its own.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from edge.errors import (
    DeadlineError,
    EdgeError,
    InvalidInputError,
    RegistryUnavailableError,
    StoreError,
    TransientError,
)
from edge.images.blob_cache import BlobCache
from edge.images.inflated import InflatedSpans
from edge.images.pulse import Pulse
from edge.images.soci.checkpoints import SpanTable
from edge.images.soci.spans import SpanDigester, SpanInflater, inflate_span, verify_span
from edge.images.soci.values import Span
from edge.images.tree import Record

_log = logging.getLogger(__name__)

READ_SECONDS: Final = 300.0
"""How long a read waits for a registry that is away, before it fails with EIO."""
_FIRST_PAUSE: Final = 0.25
_LONGEST_PAUSE: Final = 15.0
_LOOK_SECONDS: Final = 1.0
"""How long it takes at most until a fetch that takes its time notices that nobody wants it any more."""
_TRIES: Final = 4
"""On a full disk what was fetched may be pushed out of memory before it is used."""


class BlobSource(Protocol):
    """Where a layer's compressed bytes come from."""

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield exactly the bytes asked for, in pieces.

        Raises:
            RegistryUnavailableError: They cannot be had now.
            EdgeError: They cannot be had.
        """
        ...


class LazyContent:
    """`Content` of one layer.

    Args:
        layer_id: Told in messages.
        table: Its spans.
        cache: Where fetched ones are kept.
        inflated: Shared by all layers.
        source: Where they come from.
        pulse: Shared by all layers.
        read_seconds: How long a read waits for a registry that is away, before it fails.
        told: Told of what went wrong, in a sentence.

    Attributes:
        damaged: How often a span that had arrived was found to be wrong, and was let go.
    """

    def __init__(  # noqa: PLR0913 - one for each thing it works with
        self,
        layer_id: str,
        *,
        table: SpanTable,
        cache: BlobCache,
        inflated: InflatedSpans,
        source: BlobSource,
        pulse: Pulse,
        read_seconds: float,
        told: Callable[[str], None],
    ) -> None:
        self.layer_id = layer_id
        self.table = table
        self.cache = cache
        self._pulse = pulse
        self._read_seconds = read_seconds
        self._inflated = inflated
        self._source = source
        self._told = told
        self._arrived = threading.Condition()
        self._under_way: set[int] = set()
        self._awaited: set[int] = set()
        self._wanted = bytearray(len(table.spans))
        # Not the layer's id: the same layer may come again with another table of spans.
        self._own = object()
        self.damaged = 0

    # --- Content

    def ready(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """See `Content`: what is inflated already."""
        start = file.offset + offset
        parts = []
        for span in self.table.covering(start, start + size):
            data = self._inflated.get((self._own, span.number))
            if data is None:
                return None
            parts.append(_cut(span, data, start, start + size))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, file: Record, offset: int, size: int) -> bytes | memoryview:
        """See `Content`."""
        start = file.offset + offset
        spans = self.table.covering(start, start + size)
        self._require(spans)
        parts = [_cut(span, self._inflate(span), start, start + size) for span in spans]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _inflate(self, span: Span) -> memoryview:
        key = (self._own, span.number)
        for _ in range(_TRIES):
            found = self._inflated.get(key)
            if found is not None:
                return found
            if self.cache.has(span.number):
                try:
                    found = inflate_span(self.table, span, self.cache.get(span))
                except InvalidInputError as error:
                    # Verified before it was kept: the disk has lost it since, as after a power cut.
                    _log.warning("layer %s: %s; it is fetched again", self.layer_id[:12], error)
                    self._let_go(span)
                else:
                    self._inflated.put(key, found)
                    return found
            self._require((span,))
        raise StoreError(f"layer {self.layer_id[:12]}: span {span.number} does not stay where it is put")

    def local(self, file: Record, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes of a file if all of their spans are here, without fetching any."""
        start = file.offset + offset
        spans = self.table.covering(start, start + size)
        if not all(self.cache.has(span.number) for span in spans):
            return None
        try:
            parts = [_cut(span, self._inflate_here(span), start, start + size) for span in spans]
        except EdgeError:
            # The disk has lost one: it is fetched again when it is read.
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _inflate_here(self, span: Span) -> memoryview:
        key = (self.layer_id, span.number)
        found = self._inflated.get(key)
        if found is None:
            found = inflate_span(self.table, span, self.cache.get(span))
            self._inflated.put(key, found)
        return found

    # --- fetching

    @property
    def here(self) -> int:
        """Compressed bytes that have arrived."""
        if not self.cache.missing:
            return self.table.spans[-1].compressed_end
        return sum(_size(span) for span in self.table.spans if self._has(span.number))

    @property
    def wanted(self) -> int:
        """Compressed bytes of the spans that containers have read since this service started."""
        return sum(_size(span) for span in self.table.spans if self._wanted[span.number])

    def look_through(self) -> None:
        """Check every span that is here against its digest, and let go of the wrong ones."""
        for span in self.table.spans:
            if not self.cache.has(span.number):
                continue
            try:
                verify_span(span, self.cache.get(span))
            except InvalidInputError:
                self._let_go(span)

    def _let_go(self, span: Span) -> None:
        # Counted first: whoever has seen no span let go may take it that none was on its way anew.
        self.damaged += 1
        self.cache.drop(span.number)

    def _has(self, number: int) -> bool:
        return self.cache.has(number) or self._inflated.has((self._own, number))

    def _require(self, spans: tuple[Span, ...]) -> None:
        """Return when all have come. On a full disk they may be gone again by then.

        Raises:
            EdgeError: One cannot be had.
        """
        deadline = time.monotonic() + self._read_seconds
        pause = _FIRST_PAUSE
        for span in spans:
            self._wanted[span.number] = 1
        while spans := tuple(span for span in spans if not self._has(span.number)):
            mine = self._claim(spans)
            try:
                if mine:
                    with self._pulse:
                        self._fetch_claimed(mine, spans)
                    spans = tuple(span for span in spans if span not in mine)
                elif not self._wait_for(spans, deadline):
                    raise DeadlineError(
                        f"layer {self.layer_id[:12]}: its content did not come in {self._read_seconds:g} s"
                    )
            except TransientError as error:
                if time.monotonic() + pause > deadline:
                    raise
                self._told(str(error))
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _claim(self, missing: tuple[Span, ...]) -> tuple[Span, ...]:
        """Mark the first run of spans that nobody fetches; empty when all are under way."""
        with self._arrived:
            self._awaited.update(span.number for span in missing)
            free = [span for span in missing if span.number not in self._under_way]
            run = tuple(span for index, span in enumerate(free) if span.number == free[0].number + index)
            self._under_way.update(span.number for span in run)
            self._arrived.notify_all()
            return run

    def ahead(self, start: int, most: int) -> tuple[Span, ...]:
        """Return the first run of spans from `start` on that nobody has or fetches, of at most `most` bytes or one."""
        run: list[Span] = []
        size = 0
        with self._arrived:
            number = self.cache.next_missing(start)
            while number is not None and number < len(self.table.spans):
                span = self.table.spans[number]
                size += _size(span)
                if self._has(number) or number in self._under_way:
                    if run:
                        break
                    number, size = self.cache.next_missing(number + 1), 0
                    continue
                if run and size > most:
                    break
                run.append(span)
                number += 1
        return tuple(run)

    def fetch_ahead(self, run: tuple[Span, ...], passed: Callable[[int], float]) -> None:
        """Fetch adjacent spans with one request, as long as nobody else has come to them.

        Only the span whose bytes are arriving is claimed: a container that wants a later one does not wait for all
        before it.

        Args:
            run: What `ahead` returned.
            passed: Told of each piece's bytes, and returns for how many seconds there is no hurry; it is asked again
                then, with 0 bytes. Nobody waits as soon as a container wants the span.

        Raises:
            EdgeError: What did not come, did not come.
        """
        self._fetch(run, SpanDigester, self._begin, passed)

    def _fetch_claimed(self, mine: tuple[Span, ...], wanted: tuple[Span, ...]) -> None:
        more = self._claim_behind(mine[-1])
        run, failed = (*mine, *more), list[EdgeError]()
        if more:
            # What lies behind goes on arriving when whoever waits has what is wanted.
            threading.Thread(target=self._fetch_on, args=(run, mine, failed), name="ahead", daemon=True).start()
            self._wait_for(wanted, time.monotonic() + self._read_seconds)
        else:
            self._fetch_on(run, mine, failed)
        if failed:
            raise failed[0]

    def _fetch_on(self, run: tuple[Span, ...], wanted: tuple[Span, ...], failed: list[EdgeError]) -> None:
        try:
            self._fetch(run, self._taker(wanted))
        except EdgeError as error:
            failed.append(error)
        finally:
            with self._arrived:
                self._under_way.difference_update(span.number for span in run)
                self._arrived.notify_all()

    def _taker(self, wanted: tuple[Span, ...]) -> Callable[[Span], SpanDigester]:
        return lambda span: SpanInflater(self.table, span) if span in wanted else SpanDigester(span)

    def _claim_behind(self, last: Span) -> tuple[Span, ...]:
        run: list[Span] = []
        left = self._pulse.bytes_in_a_wait()
        with self._arrived:
            for span in self.table.spans[last.number + 1 :]:
                left -= _size(span)
                if left < 0 or self._has(span.number) or span.number in self._under_way:
                    break
                run.append(span)
            self._under_way.update(span.number for span in run)
        return tuple(run)

    def _begin(self, span: Span) -> bool:
        with self._arrived:
            if self._has(span.number) or span.number in self._under_way:
                return False
            self._under_way.add(span.number)
            return True

    def _fetch(
        self,
        run: tuple[Span, ...],
        taking: Callable[[Span], SpanDigester],
        begin: Callable[[Span], bool] = lambda _: True,
        passed: Callable[[int], float] = lambda _: 0.0,
    ) -> None:
        """Fetch a run; each span is there as soon as its own bytes are. What was begun ends here, however it goes."""
        mine: set[int] = set()
        try:
            start = run[0].compressed_start
            held, fed = bytearray(), 0
            spans = iter(run)
            span = next(spans)
            if not begin(span):
                return
            mine.add(span.number)
            taker = taking(span)
            began, first, count = time.monotonic(), 0.0, 0
            for chunk in self._source.chunks(start, run[-1].compressed_end - start):
                count += len(chunk) if first else 0
                first = first or time.monotonic()
                held += chunk
                while True:
                    end = min(len(held), span.compressed_end - start)
                    taker.feed(bytes(held[fed:end]))
                    fed = end
                    if start + end < span.compressed_end:
                        break
                    self._keep(span, bytes(held[:end]), self._verified(taker))
                    following = next(spans, None)
                    if following is None or not begin(following):
                        self._pulse.fetched(first - began, count, time.monotonic() - first)
                        return
                    # Neighbours may share a byte.
                    del held[: following.compressed_start - start]
                    span, start, fed = following, following.compressed_start, 0
                    taker = taking(span)
                    mine.add(span.number)
                self._take_time(span, len(chunk), passed)
            raise StoreError(f"layer {self.layer_id[:12]}: its source ended in the middle of span {span.number}")
        finally:
            with self._arrived:
                self._under_way -= mine
                self._arrived.notify_all()

    def _take_time(self, span: Span, count: int, passed: Callable[[int], float]) -> None:
        while span.number not in self._awaited and (seconds := passed(count)) > 0:
            count = 0
            with self._arrived:
                self._arrived.wait_for(lambda: span.number in self._awaited, min(seconds, _LOOK_SECONDS))

    def _verified(self, taker: SpanDigester) -> memoryview | None:
        try:
            return taker.finish()
        except InvalidInputError as error:
            # A damaged transfer, a proxy that lies, a registry that has lost bytes: it may be right next time.
            raise RegistryUnavailableError(
                f"layer {self.layer_id[:12]}: other bytes came than its index describes: {error}",
                reason="CannotPullContainerError",
            ) from error

    def _keep(self, span: Span, data: bytes, inflated: memoryview | None) -> None:
        if inflated is not None:
            self._inflated.put((self._own, span.number), inflated)
        try:
            self.cache.put(span, data)
        except StoreError as error:
            # It is served from memory while it stays there, and fetched again when it is needed again.
            self._told(str(error))
        with self._arrived:
            self._under_way.discard(span.number)
            self._awaited.discard(span.number)
            self._arrived.notify_all()

    def _wait_for(self, spans: tuple[Span, ...], deadline: float) -> bool:
        def settled() -> bool:
            missing = [span.number for span in spans if not self._has(span.number)]
            return not missing or any(number not in self._under_way for number in missing)

        with self._arrived:
            return self._arrived.wait_for(settled, max(0.0, deadline - time.monotonic()))


def _size(span: Span) -> int:
    return span.compressed_end - span.compressed_start


def _cut(span: Span, data: memoryview, start: int, end: int) -> memoryview:
    return data[max(start, span.uncompressed_start) - span.uncompressed_start : end - span.uncompressed_start]
