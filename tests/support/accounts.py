"""What a consumer can say of a stream: which records it has, which are told as lost, and whether that is all."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from edge.agent.store.outbox import Outbox
from edge.model.records import Block
from tests.support.outboxes import contents, gaps


@dataclass(slots=True)
class Account:
    """By (epoch, number): what was put, and what came."""

    stream: str
    put: dict[tuple[int, int], bytes] = field(default_factory=dict)
    came: dict[tuple[int, int], bytes] = field(default_factory=dict)
    lost: set[tuple[int, int]] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)

    def puts(self, outbox: Outbox, records: list[bytes]) -> None:
        """Put, and remember."""
        outbox.put(self.stream, records)
        first = 1 + sum(1 for epoch, _ in self.put if epoch == outbox.epoch)
        self.put.update({(outbox.epoch, number): record for number, record in enumerate(records, first)})

    def takes(self, blocks: Iterable[Block]) -> None:
        """Take what was handed out."""
        blocks = list(blocks)
        for block in blocks:
            if block.stream == self.stream:
                for number, record in enumerate(contents(block), block.first):
                    assert self.put[block.epoch, number] == record, "what came is what was put"
                    self.came[block.epoch, number] = record
        for gap in gaps(blocks):
            if gap.stream == self.stream:
                last = gap.last or max((number for epoch, number in self.put if epoch == gap.epoch), default=0)
                self.lost |= {(gap.epoch, number) for number in range(gap.first, last + 1)}
                self.reasons.add(gap.reason.value)

    def missing(self) -> set[tuple[int, int]]:
        """What neither came nor was told as lost."""
        return self.put.keys() - self.came.keys() - self.lost
