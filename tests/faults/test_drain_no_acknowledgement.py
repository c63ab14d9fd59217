"""A broker that takes everything and acknowledges nothing: nothing is removed, and nothing arrives twice in the end."""

import time
from pathlib import Path

from tests.support.draining import CRITICAL, draining_line
from tests.support.mqtt_proxy import Mischief


def test_nothing_is_removed_without_an_acknowledgement(tmp_path: Path) -> None:
    with draining_line(tmp_path) as line:
        line.proxy.mischief = Mischief.NO_ACKNOWLEDGEMENT
        line.device.produce(100, 0.001)
        time.sleep(2.0)
        waiting = {one.stream: one.records for one in line.device.outbox.facts()}
        assert waiting[CRITICAL] == 100, "not one is forgotten"
        assert line.proxy.held_back
        line.proxy.mischief = Mischief.NONE
        line.proxy.cut()
        line.check_all_arrived()
