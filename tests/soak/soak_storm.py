"""Two hundred devices, each with its certificate, and a broker that restarts: when is everybody back, how evenly?"""

import statistics
import tempfile
from pathlib import Path
from typing import Final

from edge.fleet.broker_config import BrokerConfig, acl_file, mosquitto_conf
from edge.mqtt.broker import BrokerSettings
from tests.bench.report import Report
from tests.support.certificates import CertificateAuthority
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.storm import Arrivals, storm

NAME = "storm"
DEVICES: Final = 200
DOWN_SECONDS: Final = 8.0
"""Long enough that delays of up to 8 s are due: what a restart of a small host takes."""
BACK_GOAL_SECONDS: Final = 40.0
"""For 99 of 100. By the arithmetic of full jitter alone (300 runs drawn) it is 26 s in the median, 31 s in 19 of 20;
the very last is back after 30 s in the median run and 62 s in 19 of 20."""
SHARE_GOAL: Final = 0.3
"""Of all devices within the busiest second: 0.19 by the same arithmetic, and all of them without jitter."""


def run(report: Report) -> None:
    """Kill Mosquitto under them, start it again, see them come."""
    with tempfile.TemporaryDirectory(prefix="edge-storm-") as name:
        folder = Path(name)
        authority = CertificateAuthority(folder / "ca")
        server = authority.server()
        config = BrokerConfig(
            authority.ca_file,
            server.cert_file,
            server.key_file,
            folder / "acl",
            free_port(),
            free_port(),
            address="127.0.0.1",
            user="root",
        )
        names = [f"pi-{number}" for number in range(DEVICES)]
        config.acl_file.write_text(acl_file(("shop", device) for device in names))
        identities = {device: authority.device(device) for device in names}
        devices = [
            BrokerSettings(
                "127.0.0.1", config.device_port, device, config.ca_file, identity.cert_file, identity.key_file
            )
            for device, identity in identities.items()
        ]
        with Mosquitto(folder / "b", mosquitto_conf(config), (config.device_port, config.operator_port)) as broker:
            arrivals = storm(broker, devices, [], DOWN_SECONDS, 300.0).devices
    ninety_ninth = sorted(arrivals)[int(0.99 * (DEVICES - 1))]
    busiest = Arrivals.most_within(arrivals, 1.0) / DEVICES
    report.figure(
        name=f"{DEVICES} devices, broker away for {DOWN_SECONDS:g} s: 99 of 100 are back after",
        value=round(ninety_ninth, 2),
        unit="s",
        goal=f"<= {BACK_GOAL_SECONDS:g}",
        holds=ninety_ninth <= BACK_GOAL_SECONDS,
        runs=1,
    )
    report.figure(name="the last is back after", value=round(max(arrivals), 2), unit="s", goal="", holds=True, runs=1)
    report.figure(
        name="half of them are back after",
        value=round(statistics.median(arrivals), 2),
        unit="s",
        goal="",
        holds=True,
        runs=1,
    )
    report.figure(
        name="share of them within the busiest second",
        value=round(busiest, 3),
        unit="",
        goal=f"<= {SHARE_GOAL}",
        holds=busiest <= SHARE_GOAL,
        runs=1,
    )
