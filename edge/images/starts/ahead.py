"""What a profile says is read, fetched in that order: few requests, few connections, while the container runs."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from edge.errors import EdgeError
from edge.images.lazy_content import LazyContent
from edge.images.pulse import Pulse
from edge.images.soci.checkpoints import SpanTable
from edge.images.starts.places import TarRange

_log = logging.getLogger(__name__)

CONNECTIONS: Final = 3
"""One that waits for an answer, one that carries bytes, one that begins: more would share the same link."""
RUN_BYTES: Final = 2 << 20
"""Of one request: later ones in the list must not wait long for it."""
_LOOK_AHEAD: Final = 8 << 20
"""How far down the list neighbours are looked for, to be fetched together."""


class SpanRun(NamedTuple):
    """Adjacent spans of a layer, both ends included."""

    layer: int
    first: int
    last: int


def runs_of(tables: Sequence[SpanTable | None], ranges: Iterable[TarRange]) -> tuple[SpanRun, ...]:
    """Return the spans that hold ranges, each once, in the order in which they are needed; neighbours together."""
    seen: set[tuple[int, int]] = set()
    order: list[tuple[int, int]] = []
    for one in ranges:
        table = tables[one.layer]
        end = table.spans[-1].uncompressed_end if table is not None else 0
        if table is None or one.start >= end:
            continue
        for span in table.covering(one.start, min(one.end, end)):
            if (one.layer, span.number) not in seen:
                seen.add((one.layer, span.number))
                order.append((one.layer, span.number))
    return tuple(_joined(tables, order))


def _joined(tables: Sequence[SpanTable | None], order: Sequence[tuple[int, int]]) -> Iterator[SpanRun]:
    near: set[tuple[int, int]] = set()
    taken: set[tuple[int, int]] = set()
    coming, size = deque(order), 0
    for layer, first in order:
        while coming and size < _LOOK_AHEAD:
            near.add(coming[0])
            size += _size(tables, *coming.popleft())
        size -= _size(tables, layer, first)
        if (layer, first) in taken:
            continue
        last, bytes_of = first, _size(tables, layer, first)
        while (layer, last + 1) in near and (layer, last + 1) not in taken and bytes_of < RUN_BYTES:
            last += 1
            bytes_of += _size(tables, layer, last)
        taken.update((layer, number) for number in range(first, last + 1))
        yield SpanRun(layer, first, last)


def _size(tables: Sequence[SpanTable | None], layer: int, number: int) -> int:
    table = tables[layer]
    if table is None:
        return 0
    span = table.spans[number]
    return span.compressed_end - span.compressed_start


class FetchAhead:
    """Fetches runs of spans on a few threads. A read that waits for the network goes first."""

    def __init__(self, pulse: Pulse, told: Callable[[str], None]) -> None:
        self._pulse = pulse
        self._told = told

    def start(
        self, contents: Mapping[int, LazyContent], runs: Sequence[SpanRun], before: Callable[[], None] = lambda: None
    ) -> None:
        """Begin; returns at once.

        Args:
            contents: The layers', by number.
            runs: In order.
            before: Called first: returns when there is nothing better to fetch.
        """
        left = deque(runs)
        if not left:
            return
        threading.Thread(target=self._begin, args=(contents, left, before), name="profile", daemon=True).start()

    def _begin(self, contents: Mapping[int, LazyContent], left: deque[SpanRun], before: Callable[[], None]) -> None:
        before()
        with self._pulse.expecting():
            self._fetch_all(contents, left)

    def _fetch_all(self, contents: Mapping[int, LazyContent], left: deque[SpanRun]) -> None:
        threads = [
            threading.Thread(target=self._fetch, args=(contents, left), name="profile", daemon=True)
            for _ in range(min(CONNECTIONS, len(left)) - 1)
        ]
        for thread in threads:
            thread.start()
        self._fetch(contents, left)
        for thread in threads:
            thread.join()

    def _fetch(self, contents: Mapping[int, LazyContent], left: deque[SpanRun]) -> None:
        while True:
            try:
                run = left.popleft()
            except IndexError:
                return
            content = contents.get(run.layer)
            try:
                position = run.first
                while content is not None and position <= run.last:
                    spans = tuple(one for one in content.ahead(position, RUN_BYTES) if one.number <= run.last)
                    if not spans:
                        break
                    content.fetch_ahead(spans, self._let_pass)
                    position = spans[-1].number + 1
            except EdgeError as error:
                # Only a hint: what is needed comes when it is read.
                left.clear()
                _log.info("what a start profile names did not come: %s", error)
                return

    def _let_pass(self, _count: int) -> float:
        with self._pulse.changed:
            self._pulse.changed.wait_for(lambda: not self._pulse.demands, timeout=20)
        return 0.0
