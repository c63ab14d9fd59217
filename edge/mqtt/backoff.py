"""When to try again: full jitter, so that a thousand devices do not return to a broker in the same second."""

from collections.abc import Callable
from random import uniform


class Backoff:
    """Delays between connection attempts, each uniform between 0 and a bound that doubles.

    Full jitter as in https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

    Attributes:
        first, last: The bound of the first delay and of the longest ones, in seconds.
        spread: Chooses between two bounds; a test gives its own.
    """

    def __init__(self, first: float, last: float, spread: Callable[[float, float], float] = uniform) -> None:
        self._first = first
        self._last = max(first, last)
        self._spread = spread
        self._bound = first

    def next_delay(self) -> float:
        """Return how many seconds to wait now, and double the bound for the time after."""
        bound = self._bound
        self._bound = min(self._last, bound * 2)
        return self._spread(0.0, bound)

    def reset(self) -> None:
        """Begin again at the first bound: the last connection held."""
        self._bound = self._first
