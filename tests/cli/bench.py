from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.cli import main
from edge.fleet.folder import Fleet, open_fleet
from edge.model.documents import DESIRED_STATE_TYPE, DesiredState
from edge.mqtt.broker import BrokerSettings
from tests.fakes.broker import FakeHub
from tests.fakes.device import FakeDevice

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFINITION: dict[str, Any] = {
    "family": "app",
    "containerDefinitions": [{"name": "app", "image": "registry.example/app:1", "memory": 64}],
}


@dataclass
class Ran:
    code: int
    out: str
    err: str


@dataclass
class Bench:
    """A fleet with one device and one task definition, a broker in memory, and the command line."""

    folder: Path
    hub: FakeHub
    capture: pytest.CaptureFixture[str]
    devices: list[FakeDevice] = field(default_factory=list)

    def edge(self, *words: str) -> Ran:
        """Run a command on the fleet."""
        return self.edge_without_fleet(*words, "--fleet", str(self.folder))

    def edge_without_fleet(self, *words: str) -> Ran:
        """Run a command as it stands."""
        code = main(words, brokers=self.hub.broker)
        captured = self.capture.readouterr()
        return Ran(code, captured.out, captured.err)

    def fleet(self) -> Fleet:
        return open_fleet(self.folder)

    def device(self, kind: type[FakeDevice] = FakeDevice, *, name: str = "pi-1", **options: Any) -> FakeDevice:
        """Connect a device."""
        trust = (self.folder / "trust.json").read_bytes()
        settings = BrokerSettings("broker.example", 8883, name)
        device = kind(self.hub.broker, settings, "shop", trust, **options)
        self.devices.append(device)
        assert device.ready.wait(10)
        return device

    def desired(self, device: FakeDevice) -> DesiredState:
        """What the broker has retained for a device: it is there when a command that published it has ended."""
        data = self.hub.retained[device.topics.desired].publication.payload
        return DesiredState.model_validate_json(device.trusted.verify(data, DESIRED_STATE_TYPE).payload)

    def task_ids(self) -> list[str]:
        with self.fleet() as fleet:
            return [row["task_id"] for row in fleet.database.rows("SELECT task_id FROM tasks ORDER BY created_at")]
