"""The broker goes while records leave, stays away, and comes back."""

import time
from pathlib import Path

from tests.support.draining import CRITICAL, draining_line


def test_a_broker_that_stops_again_and_again_costs_no_record(tmp_path: Path) -> None:
    with draining_line(tmp_path) as line:
        for _ in range(4):
            line.device.produce(50, 0.002)
            line.broker.stop()
            line.device.produce(50, 0.002)
            time.sleep(0.3)
            line.broker.start()
        line.check_all_arrived()


def test_what_a_killed_broker_had_acknowledged_and_lost_is_known_to_be_missing(tmp_path: Path) -> None:
    with draining_line(tmp_path) as line:
        line.device.produce(200, 0.002)
        line.broker.kill()
        line.device.produce(50, 0.002)
        line.broker.start()
        line.device.wait_until_empty()
        line.wait_for(CRITICAL, line.device.put)
        found = line.consumer.numbers(CRITICAL)
        assert max(found.values()) == 1
        # It answered for them and kept them in memory only: no sender can know. Whoever counts can.
        assert line.consumer.missing(CRITICAL) == set(range(1, line.device.put + 1)) - set(found)


def test_what_was_put_while_it_was_away_for_long_comes_from_the_disk(tmp_path: Path) -> None:
    with draining_line(tmp_path) as line:
        line.device.produce(10)
        line.device.wait_until_empty()
        line.broker.stop()
        line.device.produce(500)
        line.device.outbox.flush()
        assert sum(one.records for one in line.device.outbox.facts()) >= 1000
        line.broker.start()
        line.check_all_arrived()
