from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.fleet.folder import Address, FleetSettings, init_fleet
from edge.fleet.identities import add_device
from edge.fleet.task_definitions import register
from tests.cli.bench import DEFINITION, NOW, Bench
from tests.fakes.broker import FakeHub


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    hub = FakeHub(threaded=True)
    made = Bench(tmp_path / "fleet", hub, capsys)
    settings = FleetSettings("shop", Address("broker.example", 8883), Address("broker.example", 8884))
    with init_fleet(made.folder, settings, NOW) as fleet:
        add_device(fleet, "pi-1", made.folder / "devices" / "shop" / "pi-1", NOW)
        register(fleet.database, "app", DEFINITION, NOW)
    yield made
    for device in made.devices:
        device.stop()
    hub.close()
