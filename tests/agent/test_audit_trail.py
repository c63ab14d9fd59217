"""The device's own trail: it goes on over restarts and power cuts, and its records are handed over until they are."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.agent.engine.audit_trail import AuditTrail
from edge.agent.store.state import Change, StateStore
from edge.errors import StoreFullError
from edge.model.audit import Arrived, verify_trail


class Outbox:
    """Where records are handed over.

    Attributes:
        is_full: It takes nothing.
    """

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.is_full = False

    def put(self, records: Sequence[bytes]) -> None:
        if self.is_full:
            raise StoreFullError("no space")
        self.records += records


class Device:
    """A state file, and agents that come and go on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outbox = Outbox()
        self.time = 0.0
        self.start()

    def start(self) -> None:
        self.store = StateStore(self.folder / "state.db")
        self.trail = AuditTrail(self.store, lambda: self.time, self.outbox.put)

    def die(self) -> None:
        """With everything that is only in memory."""
        self.store.close()
        self.start()

    def store_all(self) -> None:
        self.store.commit(self.trail.stamped(Change()))
        self.trail.stored()

    def check(self, count: int) -> None:
        arrived = [Arrived(1, number, record) for number, record in enumerate(self.outbox.records, 1)]
        found = verify_trail(arrived, [], told_head=self.trail.head)
        assert (found.records, found.findings, self.trail.head.count) == (count, (), count)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_a_restart_and_a_reboot_go_on_with_the_trail(device: Device) -> None:
    for number in range(3):
        device.trail.note("command", id=f"c{number}", key_ids=["k"])
        device.store_all()
        device.trail.pass_on()
        device.die()
    device.trail.pass_on()
    device.check(3)


def test_what_was_stored_and_not_handed_over_goes_again(device: Device) -> None:
    device.trail.note("command", id="first")
    device.store_all()
    device.die()
    device.trail.pass_on()
    device.die()  # before anything else was stored: handed over once more
    device.trail.note("command", id="second")
    device.store_all()
    device.trail.pass_on()
    assert len(device.outbox.records) == 3
    device.check(2)


def test_what_was_never_stored_never_happened(device: Device) -> None:
    device.trail.note("command", id="first")
    device.store_all()
    device.trail.note("command", id="lost with its change")
    device.die()
    device.trail.note("command", id="second")
    device.store_all()
    device.trail.pass_on()
    device.check(2)


def test_a_record_whose_change_could_not_be_stored_is_withdrawn(device: Device) -> None:
    device.trail.note("command", id="first")
    device.trail.note("revision", revision=7)
    device.trail.withdraw()
    device.trail.note("revision", revision=8)
    device.store_all()
    device.trail.pass_on()
    device.check(2)
    assert b'"revision":8' in device.outbox.records[1]


def test_a_change_that_waited_does_not_bring_the_trail_s_end_back(device: Device) -> None:
    waiting = Change(meta={"something": b"else"})
    device.trail.note("command", id="first")
    device.trail.stamped(waiting)  # and the disk was full
    device.store_all()
    device.trail.note("command", id="second")
    device.store_all()
    device.store.commit(device.trail.stamped(waiting))
    device.trail.stored()
    device.trail.pass_on()
    device.die()
    device.trail.note("command", id="third")
    device.store_all()
    device.trail.pass_on()
    device.check(3)


def test_records_wait_for_an_outbox_that_takes_nothing(device: Device) -> None:
    device.outbox.is_full = True
    for number in range(5):
        device.trail.note("command", id=f"c{number}")
        device.store_all()
        device.trail.pass_on()
    device.outbox.is_full = False
    device.trail.pass_on()
    device.check(5)
    device.trail.note("command", id="last")
    device.store_all()
    assert len(device.store.meta_of("audit/")) == 1


def test_whoever_sends_nonsense_does_not_wash_the_trail_out(device: Device) -> None:
    for _ in range(1000):
        device.trail.note_refusal("revision", outcome="REJECTED")
    assert device.trail.head.count == 20
    device.time += 60
    device.trail.note_refusal("revision", outcome="REJECTED")
    device.store_all()
    device.trail.pass_on()
    assert b'"notRecorded":980' in device.outbox.records[-1]
    device.check(21)
