"""The link breaks every 200 ms: records leave in the moments between, each once in the end."""

import threading
import time
from pathlib import Path

from tests.support.draining import draining_line

FLAPS = 40


def test_a_link_that_flaps_costs_no_record(tmp_path: Path) -> None:
    with draining_line(tmp_path) as line:
        producer = threading.Thread(target=line.device.produce, args=(400, 0.02))
        producer.start()
        for _ in range(FLAPS):
            time.sleep(0.2)
            line.proxy.cut()
        producer.join()
        assert line.proxy.connections > FLAPS // 2
        line.check_all_arrived()
