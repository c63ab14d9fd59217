"""Which of a log's records are done with, and where its first one that is not stands: no I/O."""

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """A place between two blocks of a log.

    Attributes:
        at: How many records the log has before it.
        segment: The segment in which to look for the next block.
        offset: From where in that segment.
        epoch: The last block's before it; 0 when there is none.
        last: That block's last record.
    """

    at: int = 0
    segment: int = 0
    offset: int = 0
    epoch: int = 0
    last: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """What orders records in a log."""
        return self.epoch, self.last


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where some records of a log stand.

    Attributes:
        start: How many records the log has before them.
        after: Behind them.
        offset: Where their block begins, in the segment of `after`; of no meaning for more than one block.
    """

    start: int
    after: Head
    offset: int = 0


class Settled:
    """Everything before `cursor`, and some places after it. May be used by any thread.

    Records are acknowledged out of order; neighbours are joined, so that a month of acknowledgements is a few places.
    """

    def __init__(self, cursor: Head) -> None:
        self.cursor = cursor
        self._lock = threading.Lock()
        self._ahead: tuple[Place, ...] = ()

    @property
    def ahead(self) -> int:
        """How many records after the cursor are done with."""
        return sum(place.after.at - place.start for place in self._ahead)

    def holds(self, start: int, end: int) -> bool:
        """Say whether these records are done with."""
        return end <= self.cursor.at or any(place.start <= start and end <= place.after.at for place in self._ahead)

    def settle(self, place: Place) -> None:
        """Note that the records of a place are done with."""
        with self._lock:
            if place.after.at <= self.cursor.at or self.holds(place.start, place.after.at):
                return
            joined: list[Place] = []
            for one in sorted((*self._ahead, place)):
                if joined and one.start <= joined[-1].after.at:
                    joined[-1] = replace(joined[-1], after=max(joined[-1].after, one.after))
                else:
                    joined.append(one)
            while joined and joined[0].start <= self.cursor.at:
                self.cursor = max(self.cursor, joined.pop(0).after)
            self._ahead = tuple(joined)

    def enter(self, segment: int, base: int) -> bool:
        """Let the cursor stand in `segment`, which begins at record `base`, if nothing is left before it."""
        with self._lock:
            if base > self.cursor.at:
                return False
            self.cursor = replace(self.cursor, segment=segment, offset=0)
            return True
