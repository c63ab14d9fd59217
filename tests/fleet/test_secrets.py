"""Secrets at the operator's: what is kept, what a device is given, and whose key it is sealed to."""

import base64
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.agent.secrets_key import own_key, state_key
from edge.errors import InvalidInputError, NotFoundError, StoreError, TrustError
from edge.fleet.assignments import TaskRecord
from edge.fleet.device_keys import learn_key
from edge.fleet.devices import DeviceRecord, find_device
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import add_device, revoke_device
from edge.fleet.secrets import lacks_secrets, list_secrets, remove_secret, require_secrets, set_secret
from edge.fleet.task_definitions import register
from edge.fleet.tasks import adding, next_revision, nothing_new
from edge.model.envelope import open_envelope
from edge.model.sealing import open_secret
from edge.model.secrets import associated_data
from edge.model.trust import Role

NOW = datetime(2026, 11, 28, tzinfo=UTC)
DEFINITION = {
    "family": "app",
    "containerDefinitions": [
        {"name": "app", "image": "app:1", "memory": 32, "secrets": [{"name": "PW", "valueFrom": "db"}]}
    ],
}


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = init_fleet(tmp_path / "fleet", FleetSettings("shop", Address("b", 1), Address("b", 2)), NOW)
    for name in ("pi-1", "pi-2"):
        add_device(made, name, tmp_path / name, NOW)
    register(made.database, "app", DEFINITION, NOW)
    return made


def birth(folder: Path, device: str, *, of: str = "") -> dict[str, Any]:
    """What a device tells; signed with the certificate `of` another."""
    identity = folder / f"{of or device}.pem"
    identity.write_bytes(
        b"".join((folder / (of or device) / name).read_bytes() for name in ("device.crt", "device.key"))
    )
    return {"secretsKey": state_key("shop", device, folder / f"{device}.x25519", identity)}


def known(fleet: Fleet, device: str = "pi-1") -> DeviceRecord:
    return find_device(fleet.database, "shop", device)


def compose(fleet: Fleet, device: str = "pi-1", *tasks: TaskRecord) -> list[dict[str, Any]]:
    change = adding(tasks) if tasks else nothing_new
    made = next_revision(fleet.database, fleet.signers(Role.DESIRED_STATE), known(fleet, device), NOW, change)
    secrets: list[dict[str, Any]] = json.loads(open_envelope(made.envelope).payload).get("secrets", [])
    return secrets


def task(device: str = "pi-1") -> TaskRecord:
    return TaskRecord("0" * 31 + device[-1], "shop", device, "app:1", "g", "", "2026", 0, 0)


def opened(folder: Path, given: dict[str, Any], device: str = "pi-1") -> bytes:
    bound_to = associated_data("shop", device, given["name"], given["version"])
    return open_secret(own_key(folder / f"{device}.x25519"), base64.b64decode(given["sealed"]), bound_to)


def test_a_device_is_given_what_its_tasks_name_and_it_alone_can_open_it(fleet: Fleet, tmp_path: Path) -> None:
    set_secret(fleet.database, "db", b"first", NOW)
    set_secret(fleet.database, "another", b"unused", NOW)
    for device in ("pi-1", "pi-2"):
        assert learn_key(fleet, known(fleet, device), birth(tmp_path, device))
    (given,) = compose(fleet, "pi-1", task())
    (other,) = compose(fleet, "pi-2", task("pi-2"))
    assert (given["name"], given["version"], opened(tmp_path, given)) == ("db", 1, b"first")
    assert opened(tmp_path, other, "pi-2") == b"first"
    with pytest.raises(TrustError):
        opened(tmp_path, other, "pi-1")
    set_secret(fleet.database, "db", b"second", NOW)
    assert lacks_secrets(fleet.database, known(fleet))
    (given,) = compose(fleet)
    assert (given["version"], opened(tmp_path, given)) == (2, b"second")
    assert [(one.name, one.version, one.devices) for one in list_secrets(fleet.database)] == [
        ("another", 1, ()),
        ("db", 2, (("pi-1", 2), ("pi-2", 1))),
    ]


def test_what_is_not_there_is_not_given_and_versions_never_come_again(fleet: Fleet, tmp_path: Path) -> None:
    learn_key(fleet, known(fleet), birth(tmp_path, "pi-1"))
    assert compose(fleet, "pi-1", task()) == []
    with pytest.raises(NotFoundError, match="no secret db"):
        require_secrets(fleet.database, ["db"])
    set_secret(fleet.database, "db", b"first", NOW)
    remove_secret(fleet.database, "db", NOW)
    assert compose(fleet) == []
    with pytest.raises(NotFoundError):
        remove_secret(fleet.database, "db", NOW)
    assert set_secret(fleet.database, "db", b"second", NOW) == 2


def test_without_a_key_nothing_is_given_until_it_is_told(fleet: Fleet, tmp_path: Path) -> None:
    set_secret(fleet.database, "db", b"first", NOW)
    assert compose(fleet, "pi-1", task()) == []
    assert not lacks_secrets(fleet.database, known(fleet))
    learn_key(fleet, known(fleet), birth(tmp_path, "pi-1"))
    assert lacks_secrets(fleet.database, known(fleet))
    assert len(compose(fleet)) == 1
    # A key that is another one: what was given before cannot be opened any more.
    (tmp_path / "pi-1.x25519").unlink()
    assert learn_key(fleet, known(fleet), birth(tmp_path, "pi-1"))
    assert lacks_secrets(fleet.database, known(fleet))


def test_values_are_not_readable_in_the_database_alone(fleet: Fleet, tmp_path: Path) -> None:
    set_secret(fleet.database, "db", b"a value to be found", NOW)
    learn_key(fleet, known(fleet), birth(tmp_path, "pi-1"))
    for path in (tmp_path / "fleet").rglob("*"):
        assert path.is_dir() or b"a value to be found" not in path.read_bytes()
    key = tmp_path / "fleet" / "secrets.key"
    assert key.stat().st_mode & 0o777 == 0o600
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(StoreError, match="is missing"):
        compose(fleet, "pi-1", task())
    key.write_bytes(bytes(32))
    with pytest.raises(StoreError, match="cannot be read"):
        compose(fleet, "pi-1", task())
    key.write_bytes(kept)
    assert compose(fleet, "pi-1", task())


@pytest.mark.parametrize("value", [b"", b"a\0b", b"x" * 20_000])
def test_what_cannot_be_a_value(fleet: Fleet, value: bytes) -> None:
    with pytest.raises(InvalidInputError):
        set_secret(fleet.database, "db", value, NOW)


def test_a_key_that_another_device_s_certificate_signed_is_not_believed(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="signed by pi-2"):
        learn_key(fleet, known(fleet), birth(tmp_path, "pi-1", of="pi-2"))
    assert known(fleet).secrets_key is None


def test_a_key_of_a_revoked_certificate_is_not_believed(fleet: Fleet, tmp_path: Path) -> None:
    told = birth(tmp_path, "pi-1")
    revoke_device(fleet, "pi-1", NOW)
    with pytest.raises(TrustError, match="revoked"):
        learn_key(fleet, known(fleet), told)


def test_a_key_that_the_broker_put_in_another_s_place_is_not_believed(fleet: Fleet, tmp_path: Path) -> None:
    told = birth(tmp_path, "pi-1")
    mine = base64.b64encode(own_key(tmp_path / "thief")).decode()
    with pytest.raises(TrustError, match="not signed"):
        learn_key(fleet, known(fleet), {"secretsKey": told["secretsKey"] | {"publicKey": mine}})
    outside = init_fleet(tmp_path / "outside", FleetSettings("shop", Address("b", 1), Address("b", 2)), NOW)
    add_device(outside, "pi-1", tmp_path / "pi-1", NOW, force=True)
    with pytest.raises(TrustError, match="not signed"):
        learn_key(fleet, known(fleet), birth(tmp_path, "pi-1"))


@pytest.mark.parametrize(
    "told", [None, "x", {}, {"publicKey": 1}, {"publicKey": "AA", "signature": "?", "certificate": ""}]
)
def test_what_is_no_word_on_a_key_changes_nothing(fleet: Fleet, told: object) -> None:
    with contextlib.suppress(TrustError):
        assert not learn_key(fleet, known(fleet), {"secretsKey": told})
    assert known(fleet).secrets_key is None
