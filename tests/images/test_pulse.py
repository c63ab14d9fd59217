"""How much is asked for besides, from what requests took."""

import pytest

from edge.images.pulse import Pulse


def test_nothing_is_known_at_first() -> None:
    assert Pulse().bytes_in_a_wait() == 0


def test_it_is_the_rate_times_the_wait() -> None:
    pulse = Pulse()
    pulse.fetched(waited=0.04, count=600_000, took=0.1)
    assert pulse.bytes_in_a_wait() == 240_000


def test_the_shortest_wait_counts_for_longer_ones_had_other_causes() -> None:
    pulse = Pulse()
    for waited in (0.5, 0.01, 0.3):
        pulse.fetched(waited, 100_000, 0.1)
    assert pulse.bytes_in_a_wait() == pytest.approx(10_000, abs=1)


def test_it_is_bounded_on_a_link_that_is_very_fast() -> None:
    pulse = Pulse()
    pulse.fetched(waited=1.0, count=1 << 30, took=0.5)
    assert pulse.bytes_in_a_wait() == 8 << 20


def test_it_forgets() -> None:
    pulse = Pulse()
    pulse.fetched(0.001, 1000, 0.1)
    for _ in range(16):
        pulse.fetched(0.1, 100_000, 0.1)
    assert pulse.bytes_in_a_wait() == pytest.approx(100_000, abs=1)


def test_reads_that_wait_are_counted_and_their_end_is_told() -> None:
    pulse = Pulse()
    with pulse:
        assert pulse.demands == 1
        before = pulse.last
    assert (pulse.demands, pulse.last > before) == (0, True)
