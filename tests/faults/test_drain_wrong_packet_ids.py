"""A broker that acknowledges packets that were never sent: believed for nothing."""

import time
from pathlib import Path

from tests.support.draining import CRITICAL, draining_line
from tests.support.mqtt_proxy import Mischief


def test_an_acknowledgement_of_something_else_removes_nothing(tmp_path: Path) -> None:
    with draining_line(tmp_path) as line:
        line.proxy.mischief = Mischief.WRONG_IDS
        line.device.produce(100, 0.001)
        time.sleep(2.0)
        assert {one.stream: one.records for one in line.device.outbox.facts()}[CRITICAL] == 100
        assert line.proxy.held_back
        line.proxy.mischief = Mischief.NONE
        line.proxy.cut()
        line.check_all_arrived()
