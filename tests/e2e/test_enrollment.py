"""Enrolment by activation id and code, over a real Mosquitto with TLS and the access list that edge writes."""

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import edge.agent.enrolling_request
from edge.agent.enrolling import Enrolled, enroll
from edge.errors import BrokerUnavailableError, DeadlineError, RefusedError, TrustError
from edge.fleet.activations import Activation, revoke_activation
from edge.fleet.clock import now
from edge.fleet.enrollments import Enrollment, approve, deny, list_enrollments
from edge.fleet.identities import add_device
from edge.fleet.link import FleetLink, new_client_id
from edge.model.enrollment import EnrollmentAnswer, EnrollmentStatus, derive_keys, derive_password, prove
from edge.model.topics import Topics
from edge.mqtt.broker import (
    BrokerSettings,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
)
from edge.mqtt.paho_broker import PahoBroker
from tests.support.certificates import CertificateAuthority
from tests.support.enrolling import CLUSTER, Broken, Site
from tests.support.recorder import Recorder
from tests.support.wiretap import Wiretap

pytestmark = pytest.mark.mosquitto
FILES = ["agent.toml", "ca.crt", "device.crt", "device.key", "trust.json"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(edge.agent.enrolling_request, "APPROVAL_SECONDS", (0.1, 0.3))
    monkeypatch.setattr(edge.agent.enrolling_request, "ASK_SECONDS", 1.0)
    with Site(tmp_path) as made:
        yield made


@contextmanager
def connection(settings: BrokerSettings) -> Iterator[tuple[PahoBroker, Recorder]]:
    broker, heard = PahoBroker(settings), Recorder()
    broker.start(heard)
    try:
        yield broker, heard
    finally:
        broker.stop()


def as_activation(site: Site, activation: Activation, code: str, **changes: object) -> BrokerSettings:
    user = activation.id.user
    settings = BrokerSettings("127.0.0.1", site.port, user, site.ca, username=user)
    settings = _replace(settings, password=derive_password(activation.id, code), session_expiry_seconds=0)
    return _replace(settings, **changes)


def _replace(settings: BrokerSettings, **changes: object) -> BrokerSettings:
    return replace(settings, **changes)  # type: ignore[arg-type]  # names checked by dataclasses


def as_device(site: Site, device: str) -> BrokerSettings:
    place = site.place(device)
    return BrokerSettings(
        "127.0.0.1", site.device_port, device, place / "ca.crt", place / "device.crt", place / "device.key"
    )


def test_a_device_gets_its_identity_and_the_broker_lets_it_in(site: Site) -> None:
    enrolled = site.enroll(*site.activation())
    assert enrolled.asked
    assert sorted(path.name for path in site.place("pi-1").iterdir()) == FILES
    assert (site.place("pi-1") / "device.key").stat().st_mode & 0o777 == 0o600
    with site.fleet() as fleet:
        add_device(fleet, "by-hand", site.folder / "by-hand", now())
    for name in ("ca.crt", "trust.json"):
        assert (site.place("pi-1") / name).read_bytes() == (site.folder / "by-hand" / name).read_bytes()
    by_hand = (site.folder / "by-hand" / "agent.toml").read_text()
    assert (site.place("pi-1") / "agent.toml").read_text() == by_hand.replace("by-hand", "pi-1")
    # Without another word of the operator: the controller wrote the access list and told Mosquitto.
    with connection(as_device(site, "pi-1")) as (broker, heard):
        heard.wait(Connected)
        broker.publish(Publication(Topics(CLUSTER, "pi-1").reported, b"{}", 1))
        assert heard.wait(PublicationAcknowledged).reason_code < 0x80


def test_an_enrolled_device_has_nothing_to_do_and_asks_nobody(site: Site) -> None:
    activation, code = site.activation()
    first = site.enroll(activation, code)
    before = {path.name: path.read_bytes() for path in site.place("pi-1").iterdir()}
    site.stop_controller()
    site.broker.kill()
    assert site.enroll(activation, "a" * 32) == Enrolled(first.held, asked=False)
    assert {path.name: path.read_bytes() for path in site.place("pi-1").iterdir()} == before
    site.broker.start()


def test_a_code_used_twice_gives_one_identity(site: Site) -> None:
    activation, code = site.activation()
    site.enroll(activation, code)
    with pytest.raises(RefusedError, match="used up: it was for 1"):
        site.enroll(activation, code, "pi-2")
    assert site.devices() == ["pi-1"]
    assert not (site.place("pi-2") / "device.crt").exists()


def test_two_devices_that_race_for_the_last_place_get_one_identity(site: Site) -> None:
    activation, code = site.activation()

    def race(device: str) -> str:
        try:
            site.enroll(activation, code, device)
        except RefusedError as error:
            return str(error)
        return "enrolled"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(race, ("pi-1", "pi-2")))
    assert outcomes[0] == "enrolled"
    assert "used up" in outcomes[1]
    assert len(site.devices()) == 1


def test_devices_that_interrupt_one_another_all_get_their_identity(site: Site) -> None:
    activation, code = site.activation(limit=4)
    names = [f"pi-{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        enrolled = list(pool.map(lambda name: site.enroll(activation, code, name, seconds=60.0), names))
    assert [one.held.device for one in enrolled] == names == site.devices()


def test_an_activation_that_is_over_is_refused_by_the_controllers_clock(site: Site) -> None:
    activation, code = site.activation(life=timedelta(hours=1))
    site.ahead = timedelta(hours=2)
    with pytest.raises(RefusedError, match="the activation ended at"):
        site.enroll(activation, code)
    assert site.devices() == []


def test_a_wrong_code_does_not_even_get_into_the_broker(site: Site) -> None:
    activation, _ = site.activation()
    with pytest.raises(RefusedError, match="refuses activation"):
        site.enroll(activation, "a" * 32)
    assert (site.devices(), site.registered()) == ([], [])


def test_a_revoked_activation_is_refused_at_once_and_unknown_to_the_broker_at_the_reload(site: Site) -> None:
    activation, code = site.activation()
    with connection(as_activation(site, activation, code)) as (_, heard):
        heard.wait(Connected)
        with site.fleet() as fleet:
            revoke_activation(fleet, activation.id, now())
        with pytest.raises(RefusedError, match="was revoked"):
            site.enroll(activation, code)
        site.reload()
        # Whoever is connected by it is sent away, and not let in again.
        heard.wait(Disconnected, lambda event: event.refused)
        with pytest.raises(RefusedError, match="refuses activation"):
            site.enroll(activation, code)
    assert (site.devices(), site.registered()) == ([], [])


def test_an_activation_reaches_nothing_but_its_own_two_topics(site: Site) -> None:
    activation, code = site.activation()
    other, other_code = site.activation()
    site.stop_controller()
    with (
        site.fleet() as fleet,
        FleetLink(fleet.folder.broker_settings(fleet.settings.operator, new_client_id())) as operator,
        connection(as_activation(site, activation, code)) as (broker, heard),
        connection(as_activation(site, other, other_code)) as (_, bystander),
    ):
        heard.wait(Connected)
        bystander.wait(Connected)
        pi = Topics(CLUSTER, "pi-1")
        forbidden = (
            pi.desired,
            pi.reported,
            pi.command("stopTask", "0123456789abcdef"),
            activation.id.topics.answer,
            other.id.topics.request,
            other.id.topics.answer,
            f"edge/v1/{CLUSTER}/_enroll/x/req",
            "$SYS/broker/version",
        )
        for number, topic in enumerate(forbidden):
            broker.publish(Publication(topic, b"{}", number))
            assert heard.wait(PublicationAcknowledged).reason_code == 0x87, topic
        broker.publish(Publication(activation.id.topics.request, b"{}", 99))
        assert heard.wait(PublicationAcknowledged).reason_code == 0x10
        broker.subscribe((("#", 1), ("edge/v1/#", 1), ("$SYS/#", 1), (activation.id.topics.answer, 1)))
        heard.wait(Subscribed)
        for topic in (pi.desired, pi.reported, other.id.topics.answer, activation.id.topics.request):
            operator.publish(topic, b"{}", retain=False)
        operator.publish(activation.id.topics.answer, b"the end", retain=False)
        heard.wait(MessageReceived, lambda message: message.payload == b"the end")
        assert {message.topic for message in heard.messages()} == {activation.id.topics.answer}


def test_nobody_takes_over_a_session_by_the_listener_for_activations(site: Site) -> None:
    activation, code = site.activation(limit=2)
    site.enroll(activation, code)
    with connection(as_device(site, "pi-1")) as (_, device):
        device.wait(Connected)
        with connection(as_activation(site, activation, code, client_id="pi-1")) as (_, thief):
            assert not thief.wait(Connected).session_present
            time.sleep(0.3)
        # Nor does a reload send anybody away who has a certificate, though there are passwords now.
        site.reload()
        time.sleep(0.3)
        assert [event for event in device.events if isinstance(event, Disconnected)] == []
    assert f"as {activation.id.user} " in site.broker.log()


@pytest.mark.parametrize("user", ["", "pi-1", "operator", "someone"])
def test_without_an_activation_that_listener_is_shut(site: Site, user: str) -> None:
    activation, code = site.activation()
    settings = as_activation(site, activation, code, username=user, client_id="x")
    with connection(settings) as (_, heard):
        assert heard.wait(Disconnected).refused


def test_an_activations_password_is_not_enough_where_certificates_are_asked_for(site: Site) -> None:
    activation, code = site.activation()
    with connection(as_activation(site, activation, code, port=site.device_port)) as (_, heard):
        heard.wait(Disconnected)
        assert not any(isinstance(event, Connected) for event in heard.events)


def test_the_code_is_not_in_what_travelled(site: Site) -> None:
    activation, code = site.activation()
    with Wiretap(site.plain_port) as tap:
        site.enroll(activation, code, port=tap.port, ca_file=None)
    travelled = tap.heard
    # The tap does hear everything: who it is, its password at the broker, its request, the answer.
    for known in (activation.id.user, derive_password(activation.id, code)):
        assert known.encode() in travelled
    keys = derive_keys(activation.id, code)
    inside = [base64.b64decode(payload_of(travelled, topic).split(b'"')[3]) for topic in _both(activation)]
    everything = travelled + b"".join(inside)
    assert b"BEGIN CERTIFICATE REQUEST" in everything
    assert b"BEGIN CERTIFICATE-----" in everything
    for secret in (code.encode(), code.upper().encode(), keys.request, keys.answer):
        for spelled in (secret, secret.hex().encode()):
            assert spelled not in everything
    assert code not in site.broker.log()
    assert derive_password(activation.id, code) not in site.broker.log()


def payload_of(travelled: bytes, topic: str) -> bytes:
    """What was published there last."""
    begin = travelled.index(b'{"payload"', travelled.rindex(topic.encode()))
    return travelled[begin : travelled.index(b"}", begin) + 1]


def _both(activation: Activation) -> tuple[str, str]:
    return activation.id.topics.request, activation.id.topics.answer


def test_a_broker_of_another_authority_hears_nothing(site: Site, tmp_path: Path) -> None:
    activation, code = site.activation()
    identity = CertificateAuthority(tmp_path / "other").server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with suppress(OSError), context.wrap_socket(client, server_side=True) as secure:
                    heard.append(secure.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        with pytest.raises(RefusedError, match="certificate"):
            site.enroll(activation, code, port=listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    assert not any(heard)
    assert site.registered() == []


def test_what_the_broker_forges_is_not_believed(site: Site, tmp_path: Path) -> None:
    activation, code = site.activation()
    other, other_code = site.activation()
    authority = CertificateAuthority(tmp_path / "other")
    keys = derive_keys(other.id, other_code)

    def forged(request: bytes) -> bytes:
        # The most that a broker can have: the right nonce, and everything but a key of this code.
        asked = json.loads(base64.b64decode(json.loads(request)["payload"]))
        answer = EnrollmentAnswer(
            activation=asked["activation"],
            device=asked["device"],
            nonce=asked["nonce"],
            status=EnrollmentStatus.ENROLLED,
            reason=authority.ca_file.read_text()[:100],
        )
        return prove(answer, keys.answer)

    site.stop_controller()
    with answering(site, activation, forged), pytest.raises(TrustError, match="who knows the activation code"):
        site.enroll(activation, code)
    with answering(site, activation, lambda request: request), pytest.raises(TrustError):
        site.enroll(activation, code)
    assert not (site.place("pi-1") / "agent.toml").exists()


class SeenError(Exception):
    """The device was told to wait."""


def test_an_answer_of_an_earlier_run_is_not_believed(site: Site) -> None:
    activation, code = site.activation(approval=True)

    def told(text: str) -> None:
        raise SeenError(text)

    with Wiretap(site.plain_port) as tap:
        asked = site.asked(activation, code, port=tap.port, ca_file=None)
        with pytest.raises(SeenError, match="waits for an operator"):
            enroll(site.place("pi-1"), asked, PahoBroker, told)
    old = payload_of(tap.heard, activation.id.topics.answer)
    site.stop_controller()
    sent: list[bytes] = []

    def replay(request: bytes) -> bytes:
        sent.append(request)
        return old

    with answering(site, activation, replay), pytest.raises(DeadlineError, match="no answer"):
        site.enroll(activation, code, seconds=3.0)
    assert sent


@contextmanager
def answering(site: Site, activation: Activation, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """What a broker can do: hear the requests, and say what it likes."""
    with site.fleet() as fleet:
        settings = fleet.folder.broker_settings(fleet.settings.operator, new_client_id())
    broker = PahoBroker(settings)
    ready = threading.Event()

    def hear(event: object) -> None:
        if isinstance(event, Connected):
            broker.subscribe(((activation.id.topics.request, 1),))
        elif isinstance(event, Subscribed):
            ready.set()
        elif isinstance(event, MessageReceived):
            broker.acknowledge(event)
            broker.publish(Publication(activation.id.topics.answer, answer(event.payload), 1))

    broker.start(hear)
    assert ready.wait(10)
    try:
        yield
    finally:
        broker.stop()


def test_a_device_waits_for_approval_and_gets_it(site: Site) -> None:
    activation, code = site.activation(approval=True)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(site.enroll, activation, code)
        waiting = waiting_request(site)
        time.sleep(0.5)
        assert not running.done()
        with site.fleet() as fleet:
            approve(fleet, waiting.id[:8], now())
        assert running.result(20).held.device == "pi-1"
    assert any(waiting.id[:16] in text for text in site.told)


def test_a_device_that_is_denied_is_told(site: Site) -> None:
    activation, code = site.activation(approval=True)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(site.enroll, activation, code)
        waiting = waiting_request(site)
        with site.fleet() as fleet:
            deny(fleet, waiting.id, now())
        with pytest.raises(RefusedError, match="an operator denied it"):
            running.result(20)
    assert site.devices() == []


def waiting_request(site: Site) -> Enrollment:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with site.fleet() as fleet:
            found = list_enrollments(fleet.database)
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("nobody asked")


def test_without_a_controller_it_is_too_late_and_the_next_run_finishes(site: Site) -> None:
    activation, code = site.activation()
    site.stop_controller()
    with pytest.raises(DeadlineError, match="edge controller run"):
        site.enroll(activation, code, seconds=0.5)
    key = (site.place("pi-1") / "enrolling" / "device.key").read_bytes()
    site.start_controller()
    site.enroll(activation, code)
    assert (site.place("pi-1") / "device.key").read_bytes() == key


def test_without_a_broker_it_is_worth_trying_again(site: Site) -> None:
    activation, code = site.activation()
    site.stop_controller()
    site.broker.kill()
    with pytest.raises(BrokerUnavailableError):
        site.enroll(activation, code, seconds=0.5)
    site.broker.start()


def test_a_controller_that_dies_before_it_answers_counts_the_device_once(site: Site) -> None:
    activation, code = site.activation()
    site.stop_controller()
    died = threading.Event()

    def die(_: Enrollment) -> None:
        died.set()
        raise Broken

    site.start_controller(die)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(site.enroll, activation, code, seconds=60.0)
        assert died.wait(20)
        site.stop_controller()
        assert site.registered() == [("pi-1", "ENROLLED")]
        assert not running.done()
        site.start_controller()
        # The device asks again by itself, and so would the next run.
        assert running.result(60).asked
    assert site.registered() == [("pi-1", "ENROLLED")]
    with connection(as_device(site, "pi-1")) as (broker, heard):
        heard.wait(Connected)
        broker.publish(Publication(Topics(CLUSTER, "pi-1").reported, b"{}", 1))
        assert heard.wait(PublicationAcknowledged).reason_code < 0x80


@pytest.mark.timeout(300)
def test_a_device_killed_at_each_step_is_enrolled_by_the_next_run(site: Site, tmp_path: Path) -> None:
    activation, code = site.activation(limit=1000)
    secret = tmp_path / "code"
    secret.write_text(f"{code}\n")
    arguments = ["agent", "enroll", "--activation-id", str(activation.id), "--activation-code-file", str(secret)]
    arguments += ["--broker", f"127.0.0.1:{site.port}", "--ca", str(site.ca), "--timeout", "20"]
    (tmp_path / "killed").mkdir()
    given = json.dumps({"arguments": arguments, "folder": str(tmp_path / "killed")})
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_enroll", given], stdout=subprocess.PIPE, check=True, timeout=280
    )
    runs = [json.loads(line) for line in ran.stdout.splitlines()]
    *killed, last = runs
    assert len(killed) > 15
    assert not last["killed"]
    for run in runs:
        assert (run["again"], run["files"]) == (0, FILES), run
    # Each device once, whatever was cut off.
    assert site.registered() == sorted((f"pi-{run['step']}", "ENROLLED") for run in runs)
