"""The broker restarts: everybody comes back, and not all at once.

Forty real connections on a real Mosquitto, without TLS; `./dev soak storm` has two hundred with client certificates.
"""

from pathlib import Path

import pytest

from edge.mqtt.broker import BrokerSettings
from tests.support.mosquitto import Mosquitto
from tests.support.storm import Arrivals, storm

DEVICES, UNISON = 40, 10


@pytest.mark.mosquitto
def test_after_a_restart_of_the_broker_everybody_comes_back_and_not_at_once(tmp_path: Path) -> None:
    with Mosquitto.plain(tmp_path) as server:

        def settings(name: str) -> BrokerSettings:
            return BrokerSettings("127.0.0.1", server.port, name, session_expiry_seconds=60)

        devices = [settings(f"pi-{number}") for number in range(DEVICES)]
        unison = [settings(f"unison-{number}") for number in range(UNISON)]
        arrivals = storm(server, devices, unison, down=2.0, patience=60.0)
    spread = sorted(arrivals.devices)
    # Without jitter they come in one beat: the measure sees what it is for, whatever else the machine does.
    beat = Arrivals.most_within(arrivals.unison, 0.5) / UNISON
    assert beat >= 0.5
    assert Arrivals.most_within(arrivals.devices, 0.5) / DEVICES <= 0.6 * beat
    assert spread[int(0.9 * DEVICES)] - spread[int(0.1 * DEVICES)] >= 0.5
