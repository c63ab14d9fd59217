"""The power goes after any call to the disk: what was promised is kept, and broken promises would be seen."""

import pytest

from edge.agent.store.outbox import layout, reader, recovery
from edge.agent.store.outbox.spool import Spool
from edge.agent.store.outbox.stream_log import StreamLog
from tests.support.crash_explorer import count_states, mutant_is_caught

STATES = 20_000
ENOUGH = 5_000
"""Disks after which a broken promise must have been seen."""


@pytest.mark.parametrize("part", range(4))
def test_no_promise_is_broken_wherever_the_power_is_cut(part: int) -> None:
    seeds = range(part * 1000, part * 1000 + 1000)
    assert count_states(seeds, STATES // 4) == STATES // 4


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(1795495608000046, id="a torn block's header hid what was written over its end"),
        pytest.param(1795495590000013, id="what was acknowledged and let go of was told as damaged"),
    ],
)
def test_what_a_soak_found_once_stays_repaired(seed: int) -> None:
    assert count_states(range(seed, seed + 1), STATES) > 0


@pytest.mark.parametrize("lie", ["sync", "sync_folder"])
def test_a_disk_call_left_out_is_caught(lie: str) -> None:
    assert mutant_is_caught(ENOUGH, frozenset({lie})) is not None


def test_a_log_without_a_checksum_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (layout, reader, recovery):
        monkeypatch.setattr(module, "checksum", lambda _data: 0)
    assert mutant_is_caught(ENOUGH) is not None


def test_a_cursor_that_is_written_after_its_segment_went_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    persist = StreamLog.persist

    def remove_first(log: StreamLog) -> None:
        log.advance()
        log.segments.release(log.settled.cursor.segment)
        log.segments.keep_spares(0)
        persist(log)

    monkeypatch.setattr(StreamLog, "persist", remove_first)
    # Segments go only in a long life.
    assert mutant_is_caught(ENOUGH, lives=1, steps=150) is not None


def test_a_gap_that_is_not_on_the_disk_before_its_loss_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(spool: Spool) -> bool:
        spool.notes.take()
        return True

    monkeypatch.setattr(Spool, "tell_gaps", forget)
    assert mutant_is_caught(ENOUGH) is not None
