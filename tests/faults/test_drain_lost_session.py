"""The broker forgets its sessions: what it had not acknowledged is sent again, by the next connection."""

from pathlib import Path

from tests.support.draining import CRITICAL, draining_line


def test_a_session_that_is_lost_at_the_broker_loses_nothing_here(tmp_path: Path) -> None:
    with draining_line(tmp_path, persistence=False) as line:
        for _ in range(3):
            line.device.produce(50, 0.001)
            # What the broker acknowledged has to be at the consumer before it forgets it.
            line.check_all_arrived()
            line.broker.kill()
            line.device.produce(50)
            line.broker.start()
            line.wait_for(CRITICAL, line.device.put)
        line.check_all_arrived()
