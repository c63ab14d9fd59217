"""Who may say what to whom; judged on a real Mosquitto by what is delivered, since it grants every SUBSCRIBE."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge.errors import InvalidInputError
from edge.fleet.broker_config import BrokerConfig, acl_file, mosquitto_conf
from edge.model.topics import EVENT_KINDS, Topics
from edge.mqtt.broker import (
    BrokerSettings,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
    Will,
)
from edge.mqtt.paho_broker import PahoBroker
from tests.support.certificates import CertificateAuthority, Identity
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.recorder import Recorder

ONE = Topics("shop", "pi-1")
TWO = Topics("shop", "pi-2")
ELSEWHERE = Topics("depot", "pi-1")
OWN = (
    ONE.desired_ack,
    ONE.reported,
    ONE.status,
    ONE.birth,
    ONE.result("logs", "0123456789abcdef"),
    *(ONE.event(kind) for kind in EVENT_KINDS),
    ONE.stream_out("0123456789abcdef"),
)
FORBIDDEN = (
    ONE.desired,
    ONE.command("stopTask", "0123456789abcdef"),
    ONE.stream_in("0123456789abcdef"),
    "edge/v1/shop/pi-1/anything",
    "edge/v1/shop/pi-1/res/logs",
    "edge/v1/shop/pi-1/evt/other",
    TWO.reported,
    TWO.desired,
    TWO.result("logs", "0123456789abcdef"),
    ELSEWHERE.reported,
    ELSEWHERE.status,
    "edge/v1/shop/_ctl/one/status",
    "edge/v1/shop",
    "other",
    "$SYS/broker/version",
)


def example(folder: Path, **changes: object) -> BrokerConfig:
    config = BrokerConfig(folder / "ca.crt", folder / "server.crt", folder / "server.key", folder / "acl")
    return replace(config, **changes)  # type: ignore[arg-type]  # names checked by dataclasses


def test_both_listeners_ask_for_a_certificate_and_take_its_name(tmp_path: Path) -> None:
    text = mosquitto_conf(example(tmp_path))
    _, devices, operators = text.split("\nlistener ")
    for listener in (devices, operators):
        assert "require_certificate true" in listener
        assert "use_identity_as_username true" in listener
    assert "use_username_as_clientid true" in devices
    assert "use_username_as_clientid" not in operators
    assert "allow_anonymous false" in text
    assert "allow_anonymous true" not in text


def test_a_line_break_in_a_file_name_cannot_add_an_option(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        mosquitto_conf(example(tmp_path, log_file=Path("/var/log/a\nallow_anonymous true")))


def test_an_empty_fleet_still_has_an_access_list() -> None:
    assert "user operator" in acl_file([])


@pytest.mark.parametrize("devices", [[("shop", "a/b")], [("shop", "+")], [("#", "pi-1")], [("shop", "a\nuser x")]])
def test_a_name_that_is_none_gets_no_rights(devices: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidInputError):
        acl_file(devices)


def test_a_device_cannot_be_called_as_the_operators_are() -> None:
    with pytest.raises(InvalidInputError, match="operator"):
        acl_file([("shop", "operator")])


def test_one_device_name_in_two_clusters_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="depot"):
        acl_file([("shop", "pi-1"), ("depot", "pi-1")])


@dataclass
class Fleet:
    """A fleet's broker, and connections to it."""

    config: BrokerConfig
    server: Mosquitto
    authority: CertificateAuthority
    connected: list[PahoBroker]

    def connect(self, identity: Identity, client_id: str, port: int, will: Will | None = None) -> "Client":
        settings = BrokerSettings(
            "127.0.0.1", port, client_id, self.config.ca_file, identity.cert_file, identity.key_file
        )
        client = Client(PahoBroker(settings), Recorder())
        self.connected.append(client.broker)
        client.broker.start(client.heard, will)
        return client

    def device(self, name: str, client_id: str = "", will: Will | None = None) -> "Client":
        identity = self.authority.device(name)
        client = self.connect(identity, client_id or name, self.config.device_port, will)
        client.heard.wait(Connected)
        return client

    def operator(self) -> "Client":
        client = self.connect(self.authority.operator(), "edge-cli-1", self.config.operator_port)
        client.heard.wait(Connected)
        return client


@dataclass
class Client:
    broker: PahoBroker
    heard: Recorder

    def publish(self, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> int:
        assert self.broker.publish(Publication(topic, payload, token=id(payload), retain=retain))
        return self.heard.wait(PublicationAcknowledged).reason_code

    def subscribe(self, *filters: str) -> None:
        assert self.broker.subscribe(tuple((name, 1) for name in filters))
        self.heard.wait(Subscribed)

    def messages_until(self, topic: str) -> list[str]:
        seen: list[str] = []
        while True:
            message = self.heard.wait(MessageReceived)
            self.broker.acknowledge(message)
            if message.topic == topic:
                return seen
            seen.append(message.topic)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    authority = CertificateAuthority(tmp_path / "ca")
    server = authority.server()
    config = BrokerConfig(
        authority.ca_file,
        server.cert_file,
        server.key_file,
        tmp_path / "acl",
        free_port(),
        free_port(),
        address="127.0.0.1",
        crl_file=authority.revoked(authority.device("stolen")),
        user="root",
    )
    config.acl_file.write_text(acl_file([("shop", "pi-1"), ("shop", "pi-2")]))
    with Mosquitto(tmp_path / "broker", mosquitto_conf(config), (config.device_port, config.operator_port)) as broker:
        made = Fleet(config, broker, authority, [])
        yield made
        for connection in made.connected:
            connection.stop()


@pytest.mark.mosquitto
def test_a_device_can_write_its_own_topics_and_the_operator_hears_them(fleet: Fleet) -> None:
    operator, device = fleet.operator(), fleet.device("pi-1")
    operator.subscribe("edge/v1/#")
    for topic in OWN:
        assert device.publish(topic) == 0x00, topic
    operator.publish("edge/v1/end")
    assert operator.messages_until("edge/v1/end") == list(OWN)


@pytest.mark.mosquitto
def test_a_device_can_write_nothing_else(fleet: Fleet) -> None:
    operator, device = fleet.operator(), fleet.device("pi-1")
    operator.subscribe("#", "$SYS/broker/version")
    operator.messages_until("$SYS/broker/version")
    for topic in FORBIDDEN:
        assert device.publish(topic, retain=True) == 0x87, topic
    operator.publish("edge/v1/end")
    assert operator.messages_until("edge/v1/end") == []


@pytest.mark.mosquitto
def test_a_device_hears_what_is_for_it_and_nothing_else(fleet: Fleet) -> None:
    operator, device = fleet.operator(), fleet.device("pi-1")
    device.subscribe("#", "edge/v1/+/+/#", TWO.desired, "$SYS/#", "$share/group/edge/v1/#", ONE.commands)
    for_it = [ONE.desired, ONE.command("logs", "0123456789abcdef"), ONE.stream_in("0123456789abcdef")]
    for topic in (TWO.desired, TWO.reported, ELSEWHERE.desired, ONE.reported, "edge/v1/shop/_ctl/c/status", *for_it):
        operator.publish(topic, retain=True)
    operator.publish(ONE.command("end", "0123456789abcdef"))
    heard = device.messages_until(ONE.command("end", "0123456789abcdef"))
    assert set(heard) == set(for_it)


@pytest.mark.mosquitto
def test_a_will_into_another_branch_is_not_published(fleet: Fleet) -> None:
    operator = fleet.operator()
    operator.subscribe("edge/v1/#")
    device = fleet.device("pi-1", will=Will(TWO.status, b"OFFLINE", delay_seconds=0))
    other = fleet.device("pi-1")  # takes the session over, so that the first one's will is due
    device.heard.wait(Disconnected)
    device.broker.stop()
    other.broker.stop()
    operator.publish("edge/v1/end")
    assert operator.messages_until("edge/v1/end") == []


@pytest.mark.mosquitto
def test_a_device_cannot_take_over_the_session_of_another_by_its_client_id(fleet: Fleet) -> None:
    operator, victim = fleet.operator(), fleet.device("pi-2")
    victim.subscribe(TWO.commands)
    victim.broker.stop()
    operator.publish(TWO.command("stopTask", "0123456789abcdef"))
    thief = fleet.connect(fleet.authority.device("pi-1"), "pi-2", fleet.config.device_port)
    assert not thief.heard.wait(Connected).session_present
    back = fleet.connect(fleet.authority.device("pi-2"), "pi-2", fleet.config.device_port)
    assert back.heard.wait(Connected).session_present
    assert back.heard.wait(MessageReceived).topic == TWO.command("stopTask", "0123456789abcdef")
    assert not thief.heard.messages()


@pytest.mark.mosquitto
def test_a_certificate_of_the_fleet_without_an_entry_opens_nothing(fleet: Fleet) -> None:
    operator, stranger = fleet.operator(), fleet.device("pi-9")
    stranger.subscribe("#")
    operator.publish(Topics("shop", "pi-9").desired, retain=True)
    assert stranger.publish(Topics("shop", "pi-9").reported) == 0x87
    assert not stranger.heard.messages()


@pytest.mark.mosquitto
def test_a_device_that_is_added_gets_its_rights_at_the_next_reload(fleet: Fleet) -> None:
    device = fleet.device("pi-9")
    topic = Topics("shop", "pi-9").reported
    assert device.publish(topic) == 0x87
    fleet.config.acl_file.write_text(acl_file([("shop", "pi-9")]))
    fleet.server.signal(signal.SIGHUP)
    while device.publish(topic) == 0x87:
        pass  # until Mosquitto has read it; the test's own time limit ends it


@pytest.mark.mosquitto
def test_a_revoked_certificate_is_refused(fleet: Fleet) -> None:
    stolen = Identity(fleet.authority.ca_file.with_name("stolen.crt"), fleet.authority.ca_file.with_name("stolen.key"))
    client = fleet.connect(stolen, "stolen", fleet.config.device_port)
    refusal = client.heard.wait(Disconnected)
    assert refusal.refused
    assert "REVOKED" in refusal.reason.upper()
