"""A stream's records in memory: those not yet a block, and blocks that are neither acknowledged nor on the disk.

Nothing here locks or blocks; the outbox's lock guards it.
"""

import zlib
from dataclasses import dataclass
from typing import Final

from edge.agent.store.outbox.settled import Place
from edge.model.records import MAXIMUM_BLOCK, MAXIMUM_BLOCK_RECORDS, Block

HURRIED_LEVEL: Final = 1
"""zlib's level when somebody waits for the disk."""
LEVEL: Final = 6
"""zlib's level otherwise: a block is compressed once and then stored and sent, so that it pays."""
_HURRIED_BYTES: Final = 8 * 1024
"""Below it the level does not matter to who waits."""


@dataclass(slots=True, eq=False)
class Item:
    """A block to be, or a block.

    Attributes:
        raw: The records, until they are compressed.
        size: Bytes it takes in memory.
        handed: The drain has it.
        writing: The spooler is at it.
        acknowledged: The broker has it, while the spooler is at it.
        place: On the disk; it is here only to be sent soon.
    """

    first: int
    count: int
    first_ms: int
    last_ms: int
    raw: bytes | None
    size: int
    block: Block | None = None
    handed: bool = False
    writing: bool = False
    acknowledged: bool = False
    place: Place | None = None

    @property
    def last(self) -> int:
        """The last record's number."""
        return self.first + self.count - 1


class Ring:
    """See the module.

    Attributes:
        items: By their first record, oldest first.
        size: Bytes of all there is.
    """

    def __init__(self, stream: str, epoch: int, boot_id: str, most_bytes: int = MAXIMUM_BLOCK) -> None:
        """`most_bytes`: of a block's records, before compression."""
        self.most_bytes = most_bytes
        self._stream = stream
        self.epoch = epoch
        self.boot_id = boot_id
        self._next = 1
        self._parts: list[bytes] = []
        self._count = 0
        self._bytes = 0
        self._first_ms = 0
        self._last_ms = 0
        self._ratio = 0.25
        self._compressed = 0
        self.items: dict[int, Item] = {}
        self.size = 0

    @property
    def is_empty(self) -> bool:
        """Nothing is here."""
        return not self.items and not self._parts

    @property
    def records(self) -> int:
        """How many records are only here."""
        return self._count + sum(item.count for item in self.items.values() if item.place is None)

    @property
    def fill(self) -> int:
        """About how many bytes the disk would be given."""
        return int((self.size - self._compressed) * self._ratio) + self._compressed

    @property
    def gathering_since(self) -> int | None:
        """When the first record that is not yet in a block was put, in milliseconds."""
        return self._first_ms if self._parts else None

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest record that is only here was put, in milliseconds."""
        return next((item.first_ms for item in self.items.values() if item.place is None), self.gathering_since)

    def add(self, joined: bytes, count: int, now_ms: int) -> None:
        """Take records that fit into one block."""
        if self._count + count > MAXIMUM_BLOCK_RECORDS or self._bytes + len(joined) + 1 > self.most_bytes:
            self.seal()
        if not self._parts:
            self._first_ms = now_ms
        self._last_ms = now_ms
        self._parts.append(joined)
        self._count += count
        self._bytes += len(joined) + 1
        self.size += len(joined) + 1
        if self._count == MAXIMUM_BLOCK_RECORDS or self._bytes > self.most_bytes - 256:
            self.seal()

    def seal(self) -> None:
        """Make what has gathered a block."""
        if self._parts:
            raw = self._parts[0] if len(self._parts) == 1 else b"\n".join(self._parts)
            self.items[self._next] = Item(self._next, self._count, self._first_ms, self._last_ms, raw, self._bytes)
            self._next += self._count
            self._parts, self._count, self._bytes = [], 0, 0

    def next_to_send(self) -> Item | None:
        """Return the oldest that was not handed out."""
        return next((item for item in self.items.values() if not item.handed), None)

    def to_write(self, before_ms: int | None) -> list[Item]:
        """Return what is not on the disk, put at that time or before (None: all), and mark it."""
        if self._parts and (before_ms is None or self._first_ms <= before_ms):
            self.seal()
        items = [
            item
            for item in self.items.values()
            if item.place is None and (before_ms is None or item.first_ms <= before_ms)
        ]
        for item in items:
            item.writing = True
        return items

    def remove(self, item: Item) -> None:
        """Forget an item."""
        if self.items.pop(item.first, None) is not None:
            self.size -= item.size
            self._compressed -= item.size if item.raw is None else 0

    def oldest_droppable(self) -> Item | None:
        """Return the oldest that nobody writes just now."""
        if not self.items:
            self.seal()
        return next((item for item in self.items.values() if not item.writing), None)

    def oldest_copy(self) -> Item | None:
        """Return the oldest of what is here although it is on the disk."""
        return next((item for item in self.items.values() if item.place is not None), None)

    def note_size(self, item: Item) -> None:
        """Count an item as what it takes since it is compressed."""
        if item.block is not None and item.raw is not None:
            size = len(item.block.payload)
            self._ratio += (size / max(1, len(item.raw)) - self._ratio) / 8
            if item.first in self.items:
                self.size += size - item.size
                self._compressed += size
            item.size, item.raw = size, None

    def block_of(self, item: Item, *, hurried: bool = False) -> Block:
        """Return an item's block, compressing it if nobody has: takes milliseconds, so call it without the lock."""
        # In this order: whoever takes `raw` away has put the block there before.
        raw, block = item.raw, item.block
        if block is None:
            raw = raw or b""
            level = HURRIED_LEVEL if hurried and len(raw) > _HURRIED_BYTES else LEVEL
            payload = zlib.compress(raw, level)
            block = item.block = Block(
                self._stream, self.epoch, item.first, item.count, self.boot_id, item.first_ms, item.last_ms, payload
            )
        return block
