"""What reading and fetching tell each other: who waits for the network, and what the network can do."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_REMEMBERED: Final = 16
_MOST_AHEAD: Final = 8 << 20


class Pulse:
    """Of all layers together. Usable from any thread.

    Attributes:
        demands: Reads that wait for the network now.
        expected: Fetches under way of what a container will read soon.
        last: When the newest one ended, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.demands = 0
        self.expected = 0
        self.last = 0.0
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)
        self._moved: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)

    def beat(self) -> None:
        """Something will be read soon."""
        with self.changed:
            self.last = time.monotonic()

    def __enter__(self) -> None:
        """A read begins to wait for the network."""
        with self.changed:
            self.demands += 1

    def __exit__(self, *_: object) -> None:
        """It has what it waited for, or never will."""
        with self.changed:
            self.demands -= 1
            self.last = time.monotonic()
            self.changed.notify_all()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """What is fetched meanwhile will be read soon: what nobody waits for leaves it the link."""
        with self.changed:
            self.expected += 1
        try:
            yield
        finally:
            with self.changed:
                self.expected -= 1
                self.last = time.monotonic()
                self.changed.notify_all()

    @property
    def busy(self) -> bool:
        """Somebody waits for the network, or will soon; read with `changed` held."""
        return bool(self.demands or self.expected)

    def fetched(self, waited: float, count: int, took: float) -> None:
        """A request was answered: `waited` seconds for its first bytes, and `count` more bytes in `took` seconds."""
        with self.changed:
            self._waits.append(waited)
            self._moved.append((count, took))

    def bytes_in_a_wait(self) -> int:
        """What the network carries while a request waits for its answer: so much more costs hardly more than nothing.

        Whoever asks for a span asks for that much of the ones behind it too: reads are often near each other, and on a
        link with latency it is the asking that takes the time.
        """
        with self.changed:
            seconds = sum(took for _, took in self._moved)
            if not seconds:
                return 0
            rate = sum(count for count, _ in self._moved) / seconds
            return min(_MOST_AHEAD, int(rate * min(self._waits)))
