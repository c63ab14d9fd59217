"""When to try again: exponential bounds with full jitter, one record for each thing that failed."""

import random
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Retry:
    attempt: int
    due: float
    reason: str


class Backoff(Generic[Key]):
    """Retries by key: each delay is uniform between 0 and a bound that doubles from `first` to `last` seconds.

    Full jitter, so that a thousand devices that lost the same registry do not come back together.
    """

    def __init__(self, first: float, last: float, source: random.Random | None = None) -> None:
        self._first = first
        self._last = last
        self._random = source or random.Random()  # noqa: S311 - jitter is not a secret
        self._retries: dict[Key, _Retry] = {}

    def failed(self, key: Key, now: float, reason: str = "") -> float:
        """Note a failure at the monotonic time `now`, and return when to try again."""
        previous = self._retries.get(key)
        attempt = previous.attempt + 1 if previous else 0
        bound = min(self._last, self._first * 2 ** min(attempt, 32))
        due = now + self._random.uniform(0, bound)
        self._retries[key] = _Retry(attempt, due, reason)
        return due

    def succeeded(self, key: Key) -> None:
        """Begin from the first bound again."""
        self._retries.pop(key, None)

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop retries that a newer intent made pointless, or possible at once."""
        for key in list(keys):
            self._retries.pop(key, None)

    def keys(self) -> tuple[Key, ...]:
        """Return what has failed and not yet succeeded."""
        return tuple(self._retries)

    def waiting(self, now: float) -> set[Key]:
        """Return what must not be tried yet."""
        return {key for key, retry in self._retries.items() if retry.due > now}

    def next_due(self, now: float) -> float | None:
        """Return when the next of the waiting ones is due, or None."""
        return min((retry.due for retry in self._retries.values() if retry.due > now), default=None)
