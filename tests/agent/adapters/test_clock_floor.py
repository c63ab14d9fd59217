from datetime import UTC, datetime, timedelta

import pytest

from edge.agent.adapters.clock import FlooredClock
from tests.support.island import PlayedClock

FLOOR = "2026-11-24T12:00:00.000Z"


@pytest.mark.parametrize("wrong", [1970, 2000, 2026])
def test_a_clock_behind_the_floor_goes_on_from_the_floor(wrong: int) -> None:
    machine = PlayedClock(wall=datetime(wrong, 1, 1, tzinfo=UTC), good=False)
    clock = FlooredClock(machine, FLOOR)
    assert clock.now() == FLOOR
    machine.time += 90
    machine.wall += timedelta(seconds=90)
    assert clock.now() == "2026-11-24T12:01:30.000Z"


@pytest.mark.parametrize("floor", ["", "2099-01-01T00:00:00Z", "nonsense"])
def test_a_clock_that_is_known_good_is_believed(floor: str) -> None:
    assert FlooredClock(PlayedClock(), floor).now() == "2026-11-24T00:00:00Z"


def test_a_clock_ahead_of_the_floor_is_all_there_is() -> None:
    machine = PlayedClock(wall=datetime(2038, 1, 19, tzinfo=UTC), good=False)
    assert FlooredClock(machine, FLOOR).now() == "2038-01-19T00:00:00Z"
