import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edge.agent.config import load_config
from edge.agent.device_folder import DeviceFolder
from edge.agent.device_key import make_request
from edge.agent.identity_file import identity_file, replace_identity
from edge.errors import InvalidInputError, RefusedError, StoreError, TrustError
from edge.fleet.authority import DEVICE_LIFETIME
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import add_device, open_authority
from edge.model.enrollment import DeviceIdentity
from tests.cli.bench import NOW

HERE = Address("broker.example", 8883)
YEARS = DEVICE_LIFETIME


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", HERE, HERE), NOW) as fleet:
        yield fleet


@pytest.fixture
def folder(fleet: Fleet, tmp_path: Path) -> Path:
    add_device(fleet, "pi-1", tmp_path / "device", NOW)
    return tmp_path / "device"


def identity(fleet: Fleet, place: DeviceFolder, device: str = "pi-1", cluster: str = "shop") -> DeviceIdentity:
    request = make_request(place.waiting, device).read_bytes()
    return DeviceIdentity(
        cluster=cluster,
        device=device,
        certificate=open_authority(fleet).sign_device(cluster, device, request, NOW).certificate.decode(),
        authority=fleet.folder.ca_certificate.read_text(),
        trust=fleet.folder.trust_bundle.read_text(),
        broker_host="broker.example",
        broker_port=8883,
    )


def test_what_device_add_wrote_is_held(folder: Path) -> None:
    held = DeviceFolder(folder).held()
    assert held is not None
    assert (held.cluster, held.device, held.ends) == ("shop", "pi-1", NOW + YEARS)


@pytest.mark.parametrize("name", ["agent.toml", "device.key", "device.crt", "ca.crt", "trust.json"])
def test_with_one_file_missing_nothing_is_held(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert DeviceFolder(folder).held() is None


def test_a_certificate_beside_another_key_is_none(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    add_device(fleet, "pi-1", tmp_path / "other", NOW, force=True)
    shutil.copy2(tmp_path / "other" / "device.key", folder / "device.key")
    assert DeviceFolder(folder).held() is None


def test_a_renewed_certificate_counts_by_its_own_end(fleet: Fleet, folder: Path, tmp_path: Path) -> None:
    config = load_config(folder / "agent.toml")
    config.state_dir.mkdir()
    assert identity_file(config) is not None
    later = timedelta(days=1000)
    add_device(fleet, "pi-1", tmp_path / "new", NOW + later, force=True)
    replace_identity(config, (tmp_path / "new/device.crt").read_bytes(), (tmp_path / "new/device.key").read_bytes())
    held = DeviceFolder(folder).held()
    assert held is not None
    assert held.ends == NOW + YEARS + later
    # Another one that is handed over since takes its place.
    for name in ("device.crt", "device.key"):
        shutil.copy2(tmp_path / "new" / name, folder / name)
    (config.state_dir / "identity.pem").write_bytes(b"handed over: something else\n")
    held = DeviceFolder(folder).held()
    assert held is not None
    assert held.ends == NOW + YEARS + later


def test_an_identity_that_arrived_is_put_in_place_without_asking_again(fleet: Fleet, tmp_path: Path) -> None:
    place = DeviceFolder(tmp_path / "device")
    place.keep(identity(fleet, place))
    again = DeviceFolder(tmp_path / "device")
    arrived = again.arrived()
    assert arrived is not None
    again.put_in_place(arrived)
    assert again.held() is not None
    assert not again.waiting.exists()


def test_what_the_owner_wrote_stays_and_says_where_the_files_are(fleet: Fleet, folder: Path) -> None:
    toml = folder / "agent.toml"
    text = toml.read_text().replace('"device.crt"', '"certificates/own.crt"') + "# mine\n"
    toml.write_text(text)
    (folder / "certificates").mkdir()
    place = DeviceFolder(folder)
    assert place.held() is None
    place.put_in_place(identity(fleet, place))
    assert toml.read_text() == text
    assert (folder / "certificates" / "own.crt").exists()
    assert place.held() is not None


def test_an_identity_of_another_device_is_refused(fleet: Fleet, folder: Path) -> None:
    place = DeviceFolder(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(RefusedError, match="is the configuration of shop/pi-1"):
        place.keep(identity(fleet, place, "pi-2"))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert place.arrived() is None


@pytest.mark.parametrize(
    "change",
    [
        {"trust": "{}"},
        {"certificate": "none"},
        {"authority": "none"},
        {"device": "pi-2"},
        {"cluster": "farm"},
    ],
)
def test_an_identity_that_does_not_fit_together_is_refused(
    fleet: Fleet, tmp_path: Path, change: dict[str, str]
) -> None:
    place = DeviceFolder(tmp_path / "device")
    with pytest.raises(TrustError):
        place.keep(identity(fleet, place).model_copy(update=change))
    assert place.arrived() is None


def test_a_configuration_without_a_place_for_an_identity_is_told_before_anything_is_asked(folder: Path) -> None:
    toml = folder / "agent.toml"
    toml.write_text(re.sub(r"(?m)^(cert|key)_file.*$", "", toml.read_text()))
    with pytest.raises(RefusedError, match="names no certificate"):
        DeviceFolder(folder).check()
    toml.write_text("nonsense")
    with pytest.raises(InvalidInputError):
        DeviceFolder(folder)


def test_a_damaged_identity_that_waits_is_named(fleet: Fleet, tmp_path: Path) -> None:
    place = DeviceFolder(tmp_path / "device")
    place.keep(identity(fleet, place))
    (place.waiting / "identity.json").write_text("{}")
    with pytest.raises(StoreError, match="is damaged"):
        place.arrived()
