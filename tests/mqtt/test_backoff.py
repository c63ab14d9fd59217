"""Delays between connection attempts."""

from edge.mqtt.backoff import Backoff


def longest(_low: float, high: float) -> float:
    return high


def test_the_bound_doubles_up_to_the_last() -> None:
    backoff = Backoff(1, 5, longest)
    assert [backoff.next_delay() for _ in range(5)] == [1, 2, 4, 5, 5]


def test_a_connection_that_held_begins_again_at_the_first_bound() -> None:
    backoff = Backoff(1, 300, longest)
    for _ in range(4):
        backoff.next_delay()
    backoff.reset()
    assert backoff.next_delay() == 1


def test_a_delay_is_anything_between_nothing_and_the_bound() -> None:
    bounds: list[tuple[float, float]] = []

    def spread(low: float, high: float) -> float:
        bounds.append((low, high))
        return low

    backoff = Backoff(2, 300, spread)
    backoff.next_delay()
    backoff.next_delay()
    assert bounds == [(0, 2), (0, 4)]
