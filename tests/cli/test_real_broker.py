"""The whole operator's side against a real Mosquitto, with the configuration and certificates it wrote itself."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.cli import main
from edge.fleet.folder import open_fleet
from edge.fleet.link import paho_broker
from edge.fleet.task_definitions import register
from edge.mqtt.broker import BrokerSettings
from tests.cli.bench import DEFINITION, NOW
from tests.fakes.device import FakeDevice, succeeded
from tests.support.mosquitto import Mosquitto, free_port

pytestmark = pytest.mark.mosquitto


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    folder, broker = tmp_path / "fleet", tmp_path / "broker"
    device_port, operator_port = free_port(), free_port()
    address = f"127.0.0.1:{device_port}"
    words = ["--cluster", "shop", "--operator-port", str(operator_port), "--fleet", str(folder)]
    assert main(["fleet", "init", "--broker", address, *words]) == 0
    config = ["fleet", "broker-config", str(broker), "--address", "127.0.0.1", "--user", "root"]
    assert main([*config, "--fleet", str(folder)]) == 0
    assert main(["fleet", "device", "add", "pi-1", "--fleet", str(folder)]) == 0
    assert main(["device", "add", "pi-2", "--fleet", str(folder)]) == 0
    with open_fleet(folder) as opened:
        register(opened.database, "app", DEFINITION, NOW)
    capsys.readouterr()
    with Mosquitto(broker, (broker / "mosquitto.conf").read_text(), (device_port, operator_port)):
        yield folder


def device_of(fleet: Path, name: str) -> FakeDevice:
    folder = fleet / "devices" / "shop" / name
    with open_fleet(fleet) as opened:
        broker = opened.settings.broker
    settings = BrokerSettings(
        broker.host,
        broker.port,
        name,
        ca_file=folder / "ca.crt",
        cert_file=folder / "device.crt",
        key_file=folder / "device.key",
    )
    return FakeDevice(
        paho_broker,
        settings,
        "shop",
        (folder / "trust.json").read_bytes(),
        on_command=lambda command, _: [succeeded(command, {"lines": [], "truncated": False})],
    )


def test_a_task_is_run_read_and_stopped_through_a_real_broker(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = device_of(fleet, "pi-1")
    try:
        assert device.ready.wait(10)
        where = ("--fleet", str(fleet))
        assert main(["task", "run", "app", "--device", "pi-1", *where]) == 0
        assert "RUNNING" in capsys.readouterr().out
        assert main(["task", "ls", "--output", "json", *where]) == 0
        [task] = json.loads(capsys.readouterr().out)["tasks"]
        assert main(["task", "logs", task["taskId"], *where]) == 0
        assert main(["device", "ls", *where]) == 0
        assert "pi-2    NEVER SEEN" in capsys.readouterr().out
        assert main(["task", "stop", task["taskId"], *where]) == 0
        assert device.refusals == []
    finally:
        device.stop()


def test_a_device_added_later_is_let_in_by_the_refreshed_access_list(fleet: Path) -> None:
    acl = fleet.parent / "broker" / "acl"
    assert "user pi-2" in acl.read_text()
    assert (acl.stat().st_mode & 0o777) == 0o600


def test_the_certificates_satisfy_openssl(fleet: Path) -> None:
    device, broker = fleet / "devices" / "shop" / "pi-1", fleet.parent / "broker"
    for purpose, certificate in (
        ("sslclient", device / "device.crt"),
        ("sslclient", fleet / "operator.crt"),
        ("sslserver", broker / "server.crt"),
    ):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(fleet / "ca.crt")]
        done = subprocess.run([*command, str(certificate)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
