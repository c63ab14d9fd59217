"""The outbox as far as the drain sees it, in memory: `put_live` and `put_old` are the test's hands."""

import random
import threading
import zlib
from collections.abc import Callable, Sequence

from edge.model.records import Block

BOOT = "b" * 32


class FakeOutbox:
    """Fulfils `Waiting`; blocks are handed out once, and again after they were returned."""

    def __init__(self) -> None:
        self.live: list[Block] = []
        self.old: list[Block] = []
        self.out: dict[tuple[str, int], tuple[Block, bool]] = {}
        self.gone: list[Block] = []
        self.number = 0
        self.changed: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    def put_live(self, count: int, *, size: int = 20) -> Block:
        return self._put(self.live, count, size)

    def put_old(self, count: int, *, size: int = 20) -> Block:
        return self._put(self.old, count, size)

    def _put(self, lane: list[Block], count: int, size: int) -> Block:
        with self._changed:
            noise = random.Random(self.number).randbytes
            records = [
                b'{"t":1,"n":%d,"p":"%s"}' % (self.number + n, noise(size).hex().encode()) for n in range(1, count + 1)
            ]
            block = block_of(records, first=self.number + 1)
            self.number += count
            lane.append(block)
            return block

    def next_live(self) -> Block | None:
        return self._next(self.live, old=False)

    def next_backlog(self) -> Block | None:
        return self._next(self.old, old=True)

    def _next(self, lane: list[Block], *, old: bool) -> Block | None:
        with self._changed:
            if not lane:
                return None
            block = lane.pop(0)
            self.out[block.stream, block.first] = (block, old)
            return block

    def acknowledged(self, block: Block) -> None:
        with self._changed:
            self.out.pop((block.stream, block.first))
            self.gone.append(block)
            self._changed.notify_all()

    def returned(self, block: Block) -> None:
        with self._changed:
            block, old = self.out.pop((block.stream, block.first))
            (self.old if old else self.live).insert(0, block)
            self._changed.notify_all()
        self.changed()

    def returned_all(self) -> None:
        for block, _ in sorted(self.out.values(), key=lambda one: -one[0].first):
            self.returned(block)

    def next_due(self) -> float | None:
        return None

    def wait_for_gone(self, count: int, seconds: float = 20.0) -> list[Block]:
        with self._changed:
            there = self._changed.wait_for(lambda: sum(block.count for block in self.gone) >= count, seconds)
            assert there, f"{sum(block.count for block in self.gone)} of {count}"
            return list(self.gone)


def block_of(records: Sequence[bytes], *, first: int = 1, stream: str = "metrics", epoch: int = 1) -> Block:
    return Block(stream, epoch, first, len(records), BOOT, 1, 2, zlib.compress(b"\n".join(records)))
