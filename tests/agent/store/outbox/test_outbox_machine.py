"""Random uses of the outbox against lists: nothing twice, nothing late, nothing lost that nobody told."""

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from edge.agent.store.outbox import Outbox
from edge.model.records import Block, Promise, Stream
from tests.support.crash_disk import CrashDisk
from tests.support.outboxes import AUDIT, LOGS, Bench, contents, facts, gaps, records, take_all

SEGMENT = 16 * 1024
SMALL = Stream("metrics", Promise.NORMAL, 4 * SEGMENT, 3)


class OutboxMachine(RuleBasedStateMachine):
    """A process that may be killed (the disk stays whole) or stopped; the consumer gets what is handed out."""

    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        disk = CrashDisk(folders={"/", "/state"})
        self.bench = Bench(Path("/state/outbox"), disk=disk, streams=(AUDIT, SMALL, LOGS), segment=SEGMENT)
        self.disk = disk
        self.outbox: Outbox = self.bench.open()
        self.put_records: dict[tuple[str, int], list[bytes]] = {}
        self.held: set[tuple[str, int, int]] = set()
        self.settled: set[tuple[str, int, int]] = set()
        self.arrived: set[tuple[str, int, int]] = set()
        self.gap_blocks: list[Block] = []
        self.killed: set[int] = set()

    @initialize()
    def start(self) -> None:
        self.put("audit", 1, 10)

    @rule(stream=st.sampled_from(["audit", "metrics", "logs"]), count=st.integers(1, 60), size=st.integers(0, 60))
    def put(self, stream: str, count: int, size: int) -> None:
        known = self.put_records.setdefault((stream, self.outbox.epoch), [])
        new = records(*range(len(known), len(known) + count), size=size)
        self.outbox.put(stream, new)
        known.extend(new)

    @rule(target=blocks, live=st.booleans())
    def take(self, live: bool) -> object:  # noqa: FBT001 - drawn
        block = self.outbox.next_live() if live else self.outbox.next_backlog()
        if block is None:
            return multiple()
        self._arrive(block)
        return block

    @rule(block=blocks)
    def acknowledge(self, block: Block) -> None:
        if self._name(block) in self.held:
            self.held.discard(self._name(block))
            self.settled.add(self._name(block))
            self.outbox.acknowledged(block)

    @rule(block=blocks)
    def give_back(self, block: Block) -> None:
        self.held.discard(self._name(block))
        self.outbox.returned(block)

    @rule()
    def lose_the_connection(self) -> None:
        self.held.clear()
        self.outbox.returned_all()

    @rule(seconds=st.sampled_from([0.3, 1.1, 11.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.bench.clock.now += seconds
        self.outbox.run_due()

    @rule()
    def stop(self) -> None:
        self.outbox.close()
        assert self.disk.open_handles == 0
        self._start_again()

    @precondition(lambda self: len(self.killed) < 5)
    @rule()
    def kill(self) -> None:
        self.killed.add(self.outbox.epoch)
        self.disk.kill()
        self._start_again()

    @invariant()
    def facts_are_told(self) -> None:
        assert facts(self.outbox, "audit").records >= 0
        assert facts(self.outbox, "metrics").damaged == facts(self.outbox, "audit").damaged == 0

    def teardown(self) -> None:
        self.stop()
        blocks = [*take_all(self.outbox.next_backlog), *take_all(self.outbox.next_live)]
        for block in blocks:
            self._arrive(block)
            self.outbox.acknowledged(block)
        order = [(block.stream, block.epoch, block.first) for block in blocks]
        for stream in ("audit", "metrics", "logs", "gaps"):
            mine = [one for one in order if one[0] == stream]
            assert mine == sorted(mine)
        assert not any(one.records for one in self.outbox.facts() if one.stream != "gaps")
        told = list(gaps(self.gap_blocks))
        for (stream, epoch), put in self.put_records.items():
            for number in range(1, len(put) + 1):
                lost = (stream, epoch, number) not in self.arrived
                named = any(
                    (gap.stream, gap.epoch) == (stream, epoch) and gap.first <= number <= (gap.last or number)
                    for gap in told
                )
                assert not lost or (named and stream != "audit"), (stream, epoch, number)
                assert not lost or stream == "metrics" or epoch in self.killed
        super().teardown()

    def _start_again(self) -> None:
        self.held.clear()
        # What was acknowledged lately, or after something that was not, may come again.
        self.settled.clear()
        epoch = self.outbox.epoch
        self.outbox = self.bench.open()
        assert self.outbox.epoch == epoch + 1

    def _arrive(self, block: Block) -> None:
        assert self._name(block) not in self.held, "handed out twice"
        assert self._name(block) not in self.settled, "handed out after its acknowledgement"
        self.held.add(self._name(block))
        if block.stream == "gaps":
            self.gap_blocks.append(block)
            return
        put = self.put_records[block.stream, block.epoch]
        assert contents(block) == put[block.first - 1 : block.last]
        self.arrived |= {(block.stream, block.epoch, number) for number in range(block.first, block.last + 1)}

    def _name(self, block: Block) -> tuple[str, int, int]:
        return block.stream, block.epoch, block.first


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
