"""Which start of the agent this is, and which earlier ones did not end as they should."""

import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.agent.store.disk import Disk
from edge.agent.store.outbox.slots import Slots

_log = logging.getLogger(__name__)
_MOST_OPEN: Final = 16
_FORGOTTEN: Final = 2**20
_JUMP: Final = 2**31
_RETRY_SECONDS: Final = 60.0


class Epochs:
    """The file `epoch`: this start's number, and up to which number the ends are accounted for.

    Attributes:
        epoch: This start's. On the disk before this returns; when the disk takes nothing it is a random one far ahead,
            so that the next start does not use it again.
        open: Earlier starts that ended without saying so, and of which nobody has told yet; the last one at the end.
        retry_at: When to try the disk again, because the number is not on it; None: it is.
    """

    def __init__(self, disk: Disk, folder: Path, seen: int, monotonic: Callable[[], float]) -> None:
        """`seen` is the largest epoch that any record on the disk has."""
        self._slots = Slots(disk, folder / "epoch", 2)
        former, accounted = self._slots.numbers or (0, 0)
        if self._slots.numbers is None and (seen or self._slots.damaged):
            # It was there and is not: whatever numbers were given since `seen` must not be given again.
            former, accounted = seen + _FORGOTTEN, max(0, seen - 1)
        former = max(former, seen)
        candidates: Sequence[int] = range(accounted + 1, former + 1)
        self.open = tuple(dict.fromkeys((*candidates[: _MOST_OPEN - 1], *candidates[-1:])))
        self._accounted = accounted
        self.epoch = former + 1
        self.retry_at: float | None = None
        if not self._store():
            self.epoch += 1 + secrets.randbelow(_JUMP)
            self.retry_at = monotonic() + _RETRY_SECONDS

    def retry(self, now: float) -> None:
        """Put the number on the disk when it is not and it is time."""
        if self.retry_at is not None and now >= self.retry_at:
            self.retry_at = None if self._store() else now + _RETRY_SECONDS

    def account(self, epoch: int) -> None:
        """Note that the end of every start up to `epoch` is told, or was as it should be."""
        accounted, self._accounted = self._accounted, epoch
        if not self._store():
            # Told once more by the next start; nobody minds.
            self._accounted = accounted

    def close(self) -> None:
        """Give the file back."""
        self._slots.close()

    def _store(self) -> bool:
        try:
            self._slots.store(self.epoch, self._accounted)
        except OSError as error:
            _log.error("outbox: cannot write the epoch: %s", error.strerror)
            return False
        return True
