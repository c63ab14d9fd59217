"""The power goes after any call of SQLite: each commit that returned is there whole, and nothing is there by half."""

import random
from collections.abc import Iterator

import pytest

from tests.support.state_crash import Trace, explore, record

COMMITS = 15


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return record(tmp_path_factory.mktemp("state"), COMMITS)


def _count(states: Iterator[None]) -> int:
    return sum(1 for _ in states)


def test_every_commit_that_returned_is_there_whole_wherever_the_power_is_cut(trace: Trace) -> None:
    assert len(trace.operations) > 100
    assert _count(explore(trace, random.Random(1), 4)) == 4 * len(trace.operations)


@pytest.mark.parametrize("lie", ["sync", "sync_folder"])
def test_a_sync_left_out_is_caught(trace: Trace, lie: str) -> None:
    with pytest.raises(AssertionError):
        _count(explore(trace, random.Random(1), 4, frozenset({lie})))
