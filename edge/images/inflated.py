"""Inflated spans, the ones used last, within a number of bytes for all layers together."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable


class InflatedSpans:
    """A cache by least recent use. Usable from any thread.

    Args:
        spare_bytes: How many bytes may be kept, asked whenever nothing was; one span that is larger is kept alone.
    """

    def __init__(self, spare_bytes: Callable[[], int]) -> None:
        self._spare_bytes = spare_bytes
        self._maximum = 0
        self._lock = threading.Lock()
        self._spans: OrderedDict[Hashable, memoryview] = OrderedDict()
        self._bytes = 0
        self._used = threading.Event()

    def get(self, key: Hashable) -> memoryview | None:
        """Return a span, or None."""
        with self._lock:
            found = self._spans.get(key)
            if found is not None:
                self._spans.move_to_end(key)
            self._used.set()
            return found

    def has(self, key: Hashable) -> bool:
        """Say whether a span is there, without calling it used."""
        return key in self._spans

    def put(self, key: Hashable, data: memoryview) -> None:
        """Keep a span, and let go of those that are over the limit then."""
        with self._lock:
            if not self._spans:
                self._maximum = self._spare_bytes()
            before = self._spans.pop(key, None)
            self._bytes += len(data) - (len(before) if before is not None else 0)
            self._spans[key] = data
            while self._bytes > self._maximum and len(self._spans) > 1:
                _, gone = self._spans.popitem(last=False)
                self._bytes -= len(gone)

    def clear_when_unused(self, seconds: float) -> None:
        """Wait until spans are used and then for that long are not, and let go of all of them."""
        self._used.wait()
        while self._used.is_set():
            self._used.clear()
            time.sleep(seconds)
        with self._lock:
            self._spans.clear()
            self._bytes = 0
