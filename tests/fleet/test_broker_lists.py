import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.fleet.broker_folder import write_broker_folder
from edge.fleet.broker_lists import BrokerLists
from edge.fleet.enrollments import Enrollment, State
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import add_device
from tests.cli.bench import NOW

HERE = Address("broker.example", 8883)
ONE = Enrollment("aa", "shop.0123456789abcdef", "pi-1", "", State.ENROLLED, "")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with init_fleet(tmp_path / "fleet", FleetSettings("shop", HERE, HERE), NOW) as fleet:
        yield fleet


def with_broker(fleet: Fleet, folder: Path) -> Path:
    write_broker_folder(fleet, folder / "broker", NOW, user="root", enrollment_port=8885)
    add_device(fleet, "pi-1", folder / "pi-1", NOW)
    return folder / "broker" / "acl"


def test_the_lists_are_written_before_the_broker_is_told(fleet: Fleet, tmp_path: Path) -> None:
    acl = with_broker(fleet, tmp_path)
    seen = tmp_path / "seen"
    lists = BrokerLists(fleet, ("cp", str(acl), str(seen)), lambda: NOW)
    lists.let_in(ONE)
    assert "user pi-1" in seen.read_text()
    # A device that asks again does not make the broker read again.
    seen.unlink()
    lists.let_in(ONE)
    assert not seen.exists()
    # The next process does: nobody knows how far this one came.
    BrokerLists(fleet, ("cp", str(acl), str(seen)), lambda: NOW).let_in(ONE)
    assert seen.exists()


@pytest.mark.parametrize("command", [("false",), ("/there/is/none",)])
def test_a_broker_that_could_not_be_told_is_told_with_the_next_request(
    fleet: Fleet, tmp_path: Path, command: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    acl = with_broker(fleet, tmp_path)
    lists = BrokerLists(fleet, command, lambda: NOW)
    with caplog.at_level(logging.WARNING):
        lists.let_in(ONE)
        lists.let_in(ONE)
    assert caplog.text.count("was not told to read its lists") == 2
    assert "user pi-1" in acl.read_text()


def test_without_a_command_or_a_folder_the_operator_is_told(
    fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lists = BrokerLists(fleet, (), lambda: NOW)
    with caplog.at_level(logging.WARNING):
        lists.let_in(ONE)
        assert "edge fleet broker-config" in caplog.text
        with_broker(fleet, tmp_path)
        lists.let_in(ONE)
    assert "SIGHUP" in caplog.text
