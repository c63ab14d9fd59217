"""Records of which only the newest of each key matters: memory only, and handed out as blocks like the others."""

import zlib
from typing import Final

from edge.agent.store.outbox.ring import LEVEL
from edge.model.records import MAXIMUM_BLOCK, MAXIMUM_BLOCK_RECORDS, Block, Stream

MAXIMUM_KEYS: Final = 1000


class Latest:
    """The newest records by key; beyond the stream's bytes or 1,000 keys the one that was put longest ago goes.

    Nothing here locks; the outbox's lock guards it.
    """

    def __init__(self, stream: Stream, epoch: int, boot_id: str) -> None:
        self.stream = stream
        self._epoch = epoch
        self._boot_id = boot_id
        self._next = 1
        self._waiting: dict[str, tuple[int, bytes]] = {}
        self._under_way: dict[int, dict[str, tuple[int, bytes]]] = {}
        self.size = 0
        self.since_ms: int | None = None
        """When the oldest change that waits was put."""

    @property
    def records(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, key: str, record: bytes, now_ms: int) -> None:
        """Take a record; the older one of its key goes."""
        self._forget(key)
        self._waiting[key] = (now_ms, record)
        self.size += len(record)
        if self.since_ms is None:
            self.since_ms = now_ms
        while self.size > self.stream.most_bytes or len(self._waiting) > MAXIMUM_KEYS:
            self._forget(next(iter(self._waiting)))

    def take(self) -> Block | None:
        """Return what waits, as much as fits into a block."""
        taken: dict[str, tuple[int, bytes]] = {}
        size = 0
        for key, (at_ms, record) in self._waiting.items():
            size += len(record) + 1
            if taken and (size > MAXIMUM_BLOCK or len(taken) == MAXIMUM_BLOCK_RECORDS):
                break
            taken[key] = at_ms, record
        if not taken:
            return None
        for key in taken:
            self._forget(key)
        self.since_ms = min((at_ms for at_ms, _ in self._waiting.values()), default=None)
        first, self._next = self._next, self._next + len(taken)
        self._under_way[first] = taken
        times = [at_ms for at_ms, _ in taken.values()]
        payload = zlib.compress(b"\n".join(record for _, record in taken.values()), LEVEL)
        return Block(self.stream.name, self._epoch, first, len(taken), self._boot_id, min(times), max(times), payload)

    def acknowledged(self, first: int) -> None:
        """Forget what was handed out."""
        self._under_way.pop(first, None)

    def returned(self, first: int) -> None:
        """Let what was handed out wait again, unless there is something newer; it gets new numbers."""
        for key, (at_ms, record) in self._under_way.pop(first, {}).items():
            if key not in self._waiting:
                self.put(key, record, at_ms)

    def returned_all(self) -> None:
        """Let everything that was handed out wait again."""
        for first in sorted(self._under_way, reverse=True):
            self.returned(first)

    def _forget(self, key: str) -> None:
        _, record = self._waiting.pop(key, (0, b""))
        self.size -= len(record)
