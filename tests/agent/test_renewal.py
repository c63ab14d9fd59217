import json
import os
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.agent.config import AgentConfig, load_config
from edge.agent.device_key import make_request, validity
from edge.agent.identity_file import identity_file
from edge.agent.renewal import Renewal, due_at
from edge.errors import InvalidInputError, RefusedError
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import MOST_A_DAY, add_device, answer_request, renew_device, revoke_device
from edge.model.topics import Topics
from edge.mqtt.broker import BrokerEvent, Connected, MessageReceived, Publication, Subscribed
from tests.cli.bench import NOW
from tests.fakes.broker import FakeBroker, FakeHub

HERE = Address("broker.example", 8883)
PI = Topics("shop", "pi-1")
HALF = timedelta(days=365 * 3)


class Clock:
    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> str:
        return self.moment.isoformat()

    def monotonic(self) -> float:
        return time.monotonic()

    def is_synchronized(self) -> bool:
        return True


class Device:
    """A fleet with one device and its renewal, on a hub that this test plays the controller of."""

    def __init__(self, folder: Path, moment: datetime) -> None:
        self.fleet: Fleet = init_fleet(folder / "fleet", FleetSettings("shop", HERE, HERE), NOW)
        add_device(self.fleet, "pi-1", folder / "pi-1", NOW)
        self.config: AgentConfig = load_config(folder / "pi-1" / "agent.toml")
        self.config.state_dir.mkdir()
        self.moment = moment
        self.hub = FakeHub(threaded=True)
        self.broker = self.hub.broker(self.fleet.folder.broker_settings(HERE, "pi-1"))
        self.renewal = Renewal(self.config, self.broker, Clock(moment))
        self.renewal.start()
        self.controller = self.hub.broker(self.fleet.folder.broker_settings(HERE, "controller"))
        self.asked: list[MessageReceived] = []
        self.controller.start(self._hear)

    def _hear(self, event: object) -> None:
        if isinstance(event, Connected):
            self.controller.subscribe(((PI.certificate_request, 1),))
        elif isinstance(event, Subscribed):
            self.broker.start(self._tell)
        elif isinstance(event, MessageReceived):
            self.asked.append(event)

    def _tell(self, event: BrokerEvent) -> None:
        self.renewal.hear(event)

    def answer(self, payload: bytes) -> None:
        self.controller.publish(Publication(PI.certificate, payload, 1))

    @property
    def ends(self) -> datetime:
        path = identity_file(self.config)
        assert path is not None
        return validity(path.read_bytes())[1]

    def close(self) -> None:
        self.renewal.close()
        self.hub.close()
        self.fleet.__exit__()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path, NOW + HALF)
    yield device
    device.close()


def wait(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_past_half_of_its_life_a_certificate_is_renewed_for_a_new_key(device: Device) -> None:
    before = device.ends
    key = (device.config.state_dir / "identity.pem").read_bytes()
    wait(lambda: bool(device.asked))
    device.answer(answer_request(device.fleet, PI, device.asked[0].payload, device.moment))
    wait(lambda: device.ends > before)
    now = (device.config.state_dir / "identity.pem").read_bytes()
    assert now.split(b"PRIVATE")[1] != key.split(b"PRIVATE")[1]
    assert (device.config.state_dir / "identity.pem").stat().st_mode & 0o777 == 0o600
    wait(lambda: not (device.config.state_dir / "renewal").exists())


def test_an_answer_for_another_key_device_or_authority_is_refused(device: Device, tmp_path: Path) -> None:
    wait(lambda: bool(device.asked))
    before = device.ends
    add_device(device.fleet, "pi-2", tmp_path / "pi-2", NOW)
    own = make_request(tmp_path / "own", "pi-1").read_bytes()
    other = make_request(tmp_path / "other", "pi-2").read_bytes()
    asked = json.loads(device.asked[0].payload)["request"].encode()
    wrong = [
        renew_device(device.fleet, "shop", "pi-1", own, device.moment),
        renew_device(device.fleet, "shop", "pi-2", other, device.moment),
        b"no certificate",
    ]
    with init_fleet(tmp_path / "evil", FleetSettings("shop", HERE, HERE), NOW) as evil:
        add_device(evil, "pi-1", tmp_path / "evil-pi-1", NOW)
        wrong.append(renew_device(evil, "shop", "pi-1", asked, device.moment))
    for certificate in wrong:
        device.answer(json.dumps({"schemaVersion": 1, "certificate": certificate.decode()}).encode())
    for nonsense in (b"", b"{}", b"[" * 100_000):
        device.answer(nonsense)
    # The right one still counts: what was refused has cost nothing.
    device.answer(answer_request(device.fleet, PI, device.asked[0].payload, device.moment))
    wait(lambda: device.ends > before)
    # OpenSSL refuses a certificate beside the key of another.
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(device.config.state_dir / "identity.pem")


def test_a_young_certificate_is_left_alone(tmp_path: Path) -> None:
    device = Device(tmp_path, NOW + timedelta(days=100))
    try:
        wait(lambda: device.renewal._look_at > 0)
        time.sleep(1.0)
        assert device.asked == []
    finally:
        device.close()


def test_an_answer_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    device = Device(tmp_path, NOW)
    try:
        before = device.ends
        own = make_request(tmp_path / "own", "pi-1").read_bytes()
        certificate = renew_device(device.fleet, "shop", "pi-1", own, NOW + HALF)
        device.answer(json.dumps({"schemaVersion": 1, "certificate": certificate.decode()}).encode())
        time.sleep(0.5)
        assert device.ends == before
        assert not (device.config.state_dir / "renewal").exists()
    finally:
        device.close()


def test_a_certificate_handed_over_anew_takes_the_renewed_one_s_place(device: Device) -> None:
    wait(lambda: bool(device.asked))
    device.answer(answer_request(device.fleet, PI, device.asked[0].payload, device.moment))
    before = device.ends
    wait(lambda: device.ends > before)
    assert device.config.cert_file is not None
    add_device(device.fleet, "pi-1", device.config.cert_file.parent, NOW - HALF, force=True)
    assert device.ends < before


def test_a_revoked_device_gets_none_and_nobody_gets_many(device: Device, tmp_path: Path) -> None:
    request = make_request(tmp_path / "own", "pi-1").read_bytes()
    for _ in range(MOST_A_DAY):
        renew_device(device.fleet, "shop", "pi-1", request, device.moment)
    with pytest.raises(RefusedError, match="within a day"):
        renew_device(device.fleet, "shop", "pi-1", request, device.moment)
    revoke_device(device.fleet, "pi-1", NOW)
    with pytest.raises(RefusedError, match="was revoked"):
        renew_device(device.fleet, "shop", "pi-1", request, device.moment + timedelta(days=2))


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"schemaVersion":1,"request":"x"}', bytes(300_000)])
def test_what_is_no_request_is_refused(device: Device, payload: bytes) -> None:
    with pytest.raises(InvalidInputError):
        answer_request(device.fleet, PI, payload, NOW)


@pytest.mark.timeout(50)  # By itself the look gives up after a minute.
def test_an_agent_that_ends_does_not_wait_for_who_looks_at_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\necho $$ > "$0.pid"\nexec sleep 1000\n')
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    device = Device(tmp_path, NOW)
    wait((tmp_path / "slow.pid").exists)
    pid = int((tmp_path / "slow.pid").read_text())
    device.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_device_without_a_certificate_has_nothing_to_renew(device: Device) -> None:
    bare = replace(device.config, cert_file=None, key_file=None)
    assert identity_file(bare) is None
    broker: FakeBroker = device.controller
    renewal = Renewal(bare, broker, Clock(NOW))
    renewal.start()
    renewal.close()


def test_devices_do_not_all_ask_at_once() -> None:
    begins, ends = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    points = sorted(due_at(begins, ends, f"pi-{number}") for number in range(100))
    assert points[0] < points[-1] - timedelta(days=30)
    assert all(0.5 <= (point - begins) / (ends - begins) <= 0.6 for point in points)
