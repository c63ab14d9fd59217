"""The connection is dead, and nobody was told: it is noticed, and everything is sent again over a new one."""

import time
from pathlib import Path

from tests.support.draining import draining_line
from tests.support.mqtt_proxy import Mischief


def test_a_connection_that_swallows_everything_is_given_up(tmp_path: Path) -> None:
    with draining_line(tmp_path, keepalive_seconds=2) as line:
        line.device.produce(20)
        line.device.wait_until_empty()
        before = line.proxy.connections
        line.proxy.mischief = Mischief.SWALLOW
        line.device.produce(100, 0.001)
        deadline = time.monotonic() + 30
        while line.proxy.connections == before:
            assert time.monotonic() < deadline, "the dead connection was not noticed"
            time.sleep(0.05)
        line.proxy.mischief = Mischief.NONE
        line.proxy.cut()
        line.check_all_arrived()
