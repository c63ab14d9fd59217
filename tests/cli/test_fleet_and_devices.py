import json
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from edge.cli import main
from edge.fleet.folder import Address, FleetSettings, init_fleet, open_fleet
from edge.model.documents import Command, CommandResult, CommandStatus
from edge.model.trust import TrustedSet
from tests.cli.bench import NOW, Bench
from tests.fakes.device import FakeDevice, succeeded


def test_a_fleet_is_made_with_its_keys_kept_to_the_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "deep" / "fleet"
    words = ["fleet", "init", "--broker", "b.example:1883", "--cluster", "shop", "--output", "json"]
    assert main([*words, "--fleet", str(folder)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["broker"], told["operator"], told["cluster"]) == ("b.example:1883", "b.example:8884", "shop")
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("ca.key", "operator.key", "signing.key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    trusted = TrustedSet.from_bundle((folder / "trust.json").read_bytes())
    assert (trusted.version, trusted.clusters) == (1, ("shop",))


def test_a_fleet_is_not_made_over_another(bench: Bench) -> None:
    before = (bench.folder / "signing.key").read_bytes()
    ran = bench.edge("fleet", "init", "--broker", "b.example")
    assert (ran.code, "is a fleet already" in ran.err) == (5, True)
    assert (bench.folder / "signing.key").read_bytes() == before


def test_a_fleet_whose_making_broke_off_is_made_by_the_same_command(tmp_path: Path) -> None:
    settings = FleetSettings("shop", Address("b", 1), Address("b", 2))
    (tmp_path / "signing.key").mkdir()
    with pytest.raises(Exception, match="cannot write"):
        init_fleet(tmp_path, settings, NOW)
    (tmp_path / "signing.key").rmdir()
    with init_fleet(tmp_path, settings, NOW), open_fleet(tmp_path) as fleet:
        assert fleet.settings == settings


@pytest.mark.parametrize("broker", ["", "a b", "host:0", "host:70000", "host:x", ":1", "[::1", "a/b"])
def test_what_is_no_broker_address_is_refused(tmp_path: Path, broker: str) -> None:
    assert main(["fleet", "init", f"--broker={broker}", "--fleet", str(tmp_path / "fleet")]) == 2
    assert not (tmp_path / "fleet").exists()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("h", "h", 8883), ("h:1", "h", 1), ("[::1]:2", "::1", 2), ("::1", "::1", 8883), ("192.0.2.1:3", "192.0.2.1", 3)],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    address = Address.parse(text, 8883)
    assert address == Address(host, port)
    assert Address.parse(str(address), 1) == address


def test_a_device_folder_is_ready_to_be_handed_over(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "card"
    ran = bench.edge("device", "add", "pi-2", "--out", str(out), "--output", "json")
    assert ran.code == 0
    assert json.loads(ran.out)["folder"] == str(out)
    assert sorted(path.name for path in out.iterdir()) == [
        "agent.toml",
        "ca.crt",
        "device.crt",
        "device.key",
        "trust.json",
    ]
    assert (out / "device.key").stat().st_mode & 0o777 == 0o600
    configuration = tomllib.loads((out / "agent.toml").read_text())
    assert configuration == {
        "version": 1,
        "device": {"cluster": "shop", "id": "pi-2"},
        "broker": {
            "host": "broker.example",
            "port": 8883,
            "ca_file": "ca.crt",
            "cert_file": "device.crt",
            "key_file": "device.key",
            "keepalive_seconds": 60,
        },
        "trust": {"bundle": "trust.json"},
        "storage": {"state_dir": "state"},
        "podman": {"socket": "/run/podman/podman.sock"},
        "policy": {"allow_privileged": False},
    }
    certificate = x509.load_pem_x509_certificate((out / "device.crt").read_bytes())
    assert certificate.subject.rfc4514_string() == "O=shop,CN=pi-2"


def test_an_identity_is_not_overwritten_unless_forced(bench: Bench) -> None:
    key = bench.folder / "devices" / "shop" / "pi-1" / "device.key"
    before = key.read_bytes()
    ran = bench.edge("device", "add", "pi-1")
    assert (ran.code, "--force" in ran.err) == (5, True)
    assert key.read_bytes() == before
    bench.edge("task", "run", "app", "--no-wait")
    assert bench.edge("device", "add", "pi-1", "--force").code == 0
    assert key.read_bytes() != before
    assert len(bench.task_ids()) == 1


def test_another_devices_folder_is_not_overwritten(bench: Bench) -> None:
    folder = bench.folder / "devices" / "shop" / "pi-1"
    before = (folder / "device.key").read_bytes()
    assert bench.edge("device", "add", "pi-2", "--out", str(folder)).code == 5
    assert (folder / "device.key").read_bytes() == before
    assert "pi-2" not in bench.edge("device", "ls").out


@pytest.mark.parametrize("name", ["d1/cmd", "+", "D1", "operator", "a" * 65])
def test_a_device_with_a_dangerous_name_is_refused(bench: Bench, name: str) -> None:
    ran = bench.edge("device", "add", name)
    assert ran.code == 2
    assert name not in bench.edge("device", "ls").out


def test_devices_are_listed_with_their_connection(bench: Bench) -> None:
    bench.edge("device", "add", "pi-2")
    bench.device()
    bench.edge("task", "run", "app", "--device", "pi-1")
    _, first, second = bench.edge("device", "ls").out.splitlines()
    assert first.split()[:5] == ["pi-1", "ONLINE", "1", "1", "0.1.0"]
    assert second.split()[:3] == ["pi-2", "NEVER", "SEEN"]
    bench.devices[0].stop()
    assert "OFFLINE" in bench.edge("fleet", "device", "ls").out


def test_a_device_is_shown_with_what_it_told(bench: Bench) -> None:
    bench.device()
    bench.edge("task", "run", "app")
    out = bench.edge("device", "show", "pi-1").out
    for expected in ("ONLINE", "APPLIED 1", "arm64", "cpu 4096", "RUNNING", "registry.example/app:1"):
        assert expected in out
    shown = json.loads(bench.edge("device", "show", "--output", "json").out)
    assert (shown["connection"], shown["desiredRevision"], shown["publishedRevision"]) == ("ONLINE", 1, 1)


def test_an_image_is_fetched_ahead(bench: Bench) -> None:
    image = {"reference": "r.example/a:1", "imageId": "ab" * 32, "digest": "sha256:12", "architecture": "arm64"}

    def answer(command: Command, _: FakeDevice) -> Sequence[CommandResult]:
        assert command.parameters == {"image": "r.example/a:1"}
        return [
            CommandResult(id=command.id, op=command.op, status=CommandStatus.ACCEPTED),
            CommandResult(id=command.id, op=command.op, status=CommandStatus.RUNNING),
            succeeded(command, {"image": image}),
        ]

    bench.device(on_command=answer)
    ran = bench.edge("device", "pull-image", "r.example/a:1")
    assert (ran.code, "sha256:12" in ran.out) == (0, True)


def test_an_image_that_cannot_be_had_fails_with_the_reason(bench: Bench) -> None:
    def answer(command: Command, _: FakeDevice) -> Sequence[CommandResult]:
        reason = "CannotPullContainerError: manifest unknown"
        return [CommandResult(id=command.id, op=command.op, status=CommandStatus.FAILED, reason=reason)]

    bench.device(on_command=answer)
    ran = bench.edge("device", "pull-image", "r.example/a:1")
    assert (ran.code, "manifest unknown" in ran.err) == (1, True)


def test_a_device_that_does_not_answer_is_told_in_time(bench: Bench) -> None:
    ran = bench.edge("device", "pull-image", "r.example/a:1", "--timeout", "1")
    assert (ran.code, "did not answer pullImage within 1 s" in ran.err) == (6, True)


def test_what_a_broker_lost_is_published_again(bench: Bench) -> None:
    bench.edge("task", "run", "app", "--no-wait")
    before = bench.hub.retained["edge/v1/shop/pi-1/desired"].publication.payload
    bench.hub.kill()
    bench.hub.restart()
    assert bench.hub.retained == {}
    assert bench.edge("fleet", "publish").code == 0
    assert bench.hub.retained["edge/v1/shop/pi-1/desired"].publication.payload == before


def test_what_the_broker_did_not_take_is_told_and_can_be_sent_later(bench: Bench) -> None:
    bench.hub.maximum_packet_size = 400
    ran = bench.edge("task", "run", "app")
    assert (ran.code, "`edge fleet publish pi-1` sends it" in ran.err) == (1, True)
    assert "revision 1: the broker did not take it" in bench.edge("device", "show").out
    bench.hub.maximum_packet_size = 1 << 20
    assert bench.edge("fleet", "publish").code == 0
    assert "did not take" not in bench.edge("device", "show").out


def test_a_device_added_after_the_brokers_folder_was_written_is_in_its_access_list(
    bench: Bench, tmp_path: Path
) -> None:
    folder = tmp_path / "broker"
    assert bench.edge("fleet", "broker-config", str(folder), "--user", "root").code == 0
    assert "user pi-1\n" in (folder / "acl").read_text()
    ran = bench.edge("device", "add", "pi-2")
    assert "SIGHUP" in ran.err
    assert "user pi-2\n" in (folder / "acl").read_text()


def test_an_account_that_is_not_there_is_told(bench: Bench, tmp_path: Path) -> None:
    ran = bench.edge("fleet", "broker-config", str(tmp_path / "broker"), "--user", "nobody-of-this-name")
    assert (ran.code, "no account 'nobody-of-this-name'" in ran.err) == (1, True)
