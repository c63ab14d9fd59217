"""What every broker connection does; on the fake and on a real Mosquitto."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from edge.errors import BrokerError
from edge.mqtt.broker import (
    Broker,
    BrokerEvent,
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
from tests.fakes.broker import FakeHub
from tests.support.link import Link
from tests.support.mosquitto import Mosquitto
from tests.support.recorder import Recorder

LIMIT = 20_000


class Rig(Protocol):
    """A broker that a test can hurt."""

    def broker(self, settings: BrokerSettings) -> Broker: ...
    def cut(self, client_id: str) -> None: ...
    def hold(self, client_id: str) -> None: ...
    def block(self, client_id: str) -> None: ...
    def unblock(self, client_id: str) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def close(self) -> None: ...


class FakeRig:
    def __init__(self) -> None:
        self.hub = FakeHub(threaded=True, maximum_packet_size=LIMIT)

    def broker(self, settings: BrokerSettings) -> Broker:
        return self.hub.broker(settings)

    def cut(self, client_id: str) -> None:
        self.hub.drop(client_id)

    def block(self, client_id: str) -> None:
        self.hub.held.discard(client_id)
        self.hub.block(client_id)

    def hold(self, client_id: str) -> None:
        self.hub.held.add(client_id)

    def unblock(self, client_id: str) -> None:
        self.hub.unblock(client_id)

    def kill(self) -> None:
        self.hub.kill(keep_sessions=True)

    def restart(self) -> None:
        self.hub.restart()

    def close(self) -> None:
        self.hub.close()


class RealRig:
    def __init__(self, folder: Path) -> None:
        self.server = Mosquitto.plain(folder, f"max_packet_size {LIMIT}", persistence=True)
        self.server.start()
        self.links: dict[str, Link] = {}

    def broker(self, settings: BrokerSettings) -> Broker:
        link = self.links.setdefault(settings.client_id, Link(self.server.port))
        return PahoBroker(_replaced(settings, link.port))

    def cut(self, client_id: str) -> None:
        self.links[client_id].cut()

    def block(self, client_id: str) -> None:
        self.links[client_id].block()

    def hold(self, client_id: str) -> None:
        self.links[client_id].hold()

    def unblock(self, client_id: str) -> None:
        self.links[client_id].unblock()

    def kill(self) -> None:
        self.server.kill()

    def restart(self) -> None:
        self.server.start()

    def close(self) -> None:
        for link in self.links.values():
            link.close()
        self.server.kill()


def _replaced(settings: BrokerSettings, port: int) -> BrokerSettings:
    return BrokerSettings(
        "127.0.0.1",
        port,
        settings.client_id,
        session_expiry_seconds=settings.session_expiry_seconds,
        receive_maximum=settings.receive_maximum,
        maximum_packet_size=settings.maximum_packet_size,
        backoff_first_seconds=settings.backoff_first_seconds,
        backoff_last_seconds=settings.backoff_last_seconds,
    )


@pytest.fixture(params=["fake", pytest.param("mosquitto", marks=pytest.mark.mosquitto)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made: Rig = FakeRig() if request.param == "fake" else RealRig(tmp_path)
    yield made
    made.close()


class Client:
    """A broker connection and what it told."""

    def __init__(
        self, rig: Rig, client_id: str, *, session_expiry_seconds: int = 3600, receive_maximum: int = 16
    ) -> None:
        self.heard = Recorder()
        self.broker = rig.broker(
            BrokerSettings(
                "127.0.0.1",
                1,
                client_id,
                session_expiry_seconds=session_expiry_seconds,
                receive_maximum=receive_maximum,
                maximum_packet_size=10_000,
                backoff_first_seconds=0.05,
                backoff_last_seconds=0.1,
            )
        )

    def start(self, will: Will | None = None) -> Connected:
        self.broker.start(self.heard, will)
        return self.heard.wait(Connected)

    def subscribe(self, *filters: str, qos: int = 1) -> Subscribed:
        assert self.broker.subscribe(tuple((name, qos) for name in filters))
        return self.heard.wait(Subscribed)

    def publish(self, publication: Publication) -> int:
        assert self.broker.publish(publication)
        token = publication.token
        return self.heard.wait(PublicationAcknowledged, lambda event: event.token == token).reason_code

    def message(self) -> MessageReceived:
        return self.heard.wait(MessageReceived)


@pytest.fixture
def device(rig: Rig) -> Iterator[Client]:
    client = Client(rig, "device")
    yield client
    client.broker.stop()


@pytest.fixture
def operator(rig: Rig) -> Iterator[Client]:
    client = Client(rig, "operator", session_expiry_seconds=0)
    yield client
    client.broker.stop()


def test_a_new_client_is_connected_without_a_session_and_told_the_limits(device: Client) -> None:
    assert device.start() == Connected(session_present=False, receive_maximum=20, maximum_packet_size=LIMIT)


def test_starting_twice_is_an_error(device: Client) -> None:
    device.start()
    with pytest.raises(BrokerError):
        device.broker.start(device.heard)


def test_nothing_can_be_published_or_subscribed_before_there_is_a_connection(device: Client) -> None:
    assert not device.broker.publish(Publication("a", b"", 1))
    assert not device.broker.subscribe((("a", 1),))


def test_a_subscription_brings_what_is_retained_and_then_what_is_new(device: Client, operator: Client) -> None:
    operator.start()
    device.start()
    operator.publish(Publication("a/desired", b"old", 1, retain=True))
    assert device.subscribe("a/desired") == Subscribed(("a/desired",), (1,))
    first = device.message()
    device.broker.acknowledge(first)
    operator.publish(Publication("a/desired", b"new", 2, retain=True))
    second = device.message()
    assert [(first.payload, first.retain), (second.payload, second.retain)] == [(b"old", True), (b"new", False)]


def test_an_empty_retained_message_takes_the_retained_one_away(device: Client, operator: Client) -> None:
    operator.start()
    operator.publish(Publication("a/gone", b"x", 1, retain=True))
    operator.publish(Publication("a/gone", b"", 2, retain=True))
    operator.publish(Publication("a/here", b"y", 3, retain=True))
    device.start()
    device.subscribe("a/+")
    assert device.message().topic == "a/here"


def test_filters_match_by_level(device: Client, operator: Client) -> None:
    operator.start()
    device.start()
    device.subscribe("a/cmd/+/+", "b/#")
    for number, topic in enumerate(("a/cmd/x", "a/cmd/x/1/2", "a/desired", "b", "b/c/d", "a/cmd/x/1")):
        operator.publish(Publication(topic, b"", number))
    seen = [device.message() for _ in range(3)]
    assert [message.topic for message in seen] == ["b", "b/c/d", "a/cmd/x/1"]


def test_a_publication_is_answered_with_its_token_and_whether_anybody_listens(device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    operator.subscribe("listened")
    assert device.publish(Publication("listened", b"", 7)) == 0x00
    assert device.publish(Publication("nobody", b"", 8)) == 0x10


def test_a_qos_0_publication_is_answered_when_it_was_sent(device: Client) -> None:
    device.start()
    assert device.publish(Publication("nobody", b"", 9, qos=0)) == 0x00


def test_more_publications_than_the_broker_takes_at_once_are_all_answered_in_order(device: Client) -> None:
    device.start()
    for token in range(200):
        assert device.broker.publish(Publication("many", b"x", token))
    answered = [device.heard.wait(PublicationAcknowledged).token for _ in range(200)]
    assert answered == list(range(200))


def test_many_publications_from_within_one_event_are_all_sent(rig: Rig) -> None:
    burst = Client(rig, "burst")

    def on_event(event: BrokerEvent) -> None:
        if isinstance(event, Connected):
            for token in range(500):
                assert burst.broker.publish(Publication("many", b"x", token, qos=0))
        burst.heard(event)

    burst.broker.start(on_event)
    answered = [burst.heard.wait(PublicationAcknowledged).token for _ in range(500)]
    assert answered == list(range(500))
    burst.broker.stop()


def test_a_publication_too_large_for_the_broker_is_refused_and_the_connection_lives(device: Client) -> None:
    device.start()
    assert device.publish(Publication("big", b"x" * LIMIT, 1)) == 0x95
    assert device.publish(Publication("small", b"x", 2)) == 0x10
    assert not [event for event in device.heard.events if isinstance(event, Disconnected)]


def test_a_publication_to_a_filter_is_refused(device: Client) -> None:
    device.start()
    assert device.publish(Publication("a/+/b", b"", 1)) == 0x90


def test_a_subscription_that_is_no_filter_is_refused(device: Client) -> None:
    device.start()
    assert min(device.subscribe("a/#/b").reason_codes) >= 0x80


def test_a_message_too_large_for_us_never_arrives(device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    device.subscribe("a/+")
    operator.publish(Publication("a/big", b"x" * 12_000, 1))
    operator.publish(Publication("a/small", b"x", 2))
    assert device.message().topic == "a/small"


def test_response_topic_and_correlation_data_arrive(device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    device.subscribe("cmd")
    operator.publish(Publication("cmd", b"?", 1, correlation=b"\x00\xffid", response_topic="res/1"))
    request = device.message()
    assert (request.correlation, request.response_topic) == (b"\x00\xffid", "res/1")


def test_what_expires_while_a_client_is_away_is_not_delivered(rig: Rig, device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    device.subscribe("a/+")
    rig.block("device")
    device.heard.wait(Disconnected)
    operator.publish(Publication("a/brief", b"", 1, expiry_seconds=1))
    operator.publish(Publication("a/lasting", b"", 2, expiry_seconds=60))
    operator.publish(Publication("b/later", b"", 3))
    _let_seconds_pass(2)
    rig.unblock("device")
    device.heard.wait(Connected)
    assert device.message().topic == "a/lasting"


def test_what_was_not_acknowledged_comes_again_after_a_reconnect(rig: Rig, device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    device.subscribe("a/+")
    operator.publish(Publication("a/1", b"", 1))
    operator.publish(Publication("a/2", b"", 2))
    first, second = device.message(), device.message()
    device.broker.acknowledge(first)
    # The broker takes a connection's packets in order: once it answers this one, it has the acknowledgement too.
    device.publish(Publication("b", b"", 3))
    rig.cut("device")
    device.heard.wait(Disconnected)
    assert device.heard.wait(Connected).session_present
    again = device.message()
    assert (again.topic, again.connection > second.connection) == ("a/2", True)


def test_a_late_acknowledgement_for_an_earlier_connection_is_dropped(
    rig: Rig, device: Client, operator: Client
) -> None:
    device.start()
    operator.start()
    device.subscribe("a/+")
    operator.publish(Publication("a/1", b"", 1))
    old = device.message()
    for _ in range(2):
        rig.cut("device")
        device.heard.wait(Disconnected)
        device.heard.wait(Connected)
        assert device.message().topic == "a/1"
        device.broker.acknowledge(old)
        device.publish(Publication("b", b"", 2))  # whose answer says that the broker has seen what was sent before


def test_no_more_messages_are_under_way_than_receive_maximum(rig: Rig, operator: Client) -> None:
    slow = Client(rig, "slow", receive_maximum=2)
    slow.start()
    operator.start()
    slow.subscribe("a/+")
    for number in range(4):
        operator.publish(Publication(f"a/{number}", b"", number))
    first = slow.message()
    slow.message()
    operator.publish(Publication("b", b"", 9))
    assert len(slow.heard.messages()) == 2
    slow.broker.acknowledge(first)
    assert slow.message().topic == "a/2"
    slow.broker.stop()


def test_a_subscription_stands_when_the_session_is_still_there(rig: Rig, device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    device.subscribe("a")
    device.broker.stop()
    operator.publish(Publication("a", b"while away", 1))
    again = Client(rig, "device")
    assert again.start().session_present
    assert again.message().payload == b"while away"
    again.broker.stop()


def test_a_client_without_session_expiry_begins_anew(rig: Rig, operator: Client) -> None:
    operator.start()
    operator.subscribe("a")
    rig.cut("operator")
    operator.heard.wait(Disconnected)
    assert not operator.heard.wait(Connected).session_present


def test_the_will_of_a_client_that_vanishes_is_published(rig: Rig, operator: Client) -> None:
    lost = Client(rig, "lost")
    lost.start(Will("status", b"OFFLINE", delay_seconds=0))
    operator.start()
    operator.subscribe("status")
    rig.cut("lost")
    assert operator.message().payload == b"OFFLINE"
    lost.broker.stop()


def test_the_will_of_a_client_that_says_goodbye_is_not_published(device: Client, operator: Client) -> None:
    device.start(Will("status", b"OFFLINE", delay_seconds=0))
    operator.start()
    operator.subscribe("status")
    device.broker.stop(Publication("status", b"goodbye", 1))
    assert operator.message().payload == b"goodbye"
    operator.publish(Publication("status", b"end", 2))
    assert operator.message().payload == b"end"


def test_a_client_back_within_the_will_delay_has_no_will_published(rig: Rig, device: Client, operator: Client) -> None:
    device.start(Will("status", b"OFFLINE", delay_seconds=2))
    operator.start()
    operator.subscribe("status")
    rig.cut("device")
    device.heard.wait(Disconnected)
    device.heard.wait(Connected)
    _let_seconds_pass(3)
    operator.publish(Publication("status", b"end", 2))
    assert operator.message().payload == b"end"


def test_set_will_counts_from_the_next_connection_on(rig: Rig, operator: Client) -> None:
    lost = Client(rig, "lost")
    lost.start(Will("status", b"session 1", delay_seconds=0))
    operator.start()
    operator.subscribe("status")
    lost.broker.set_will(Will("status", b"session 2", delay_seconds=0))
    for expected in (b"session 1", b"session 2"):
        rig.cut("lost")
        lost.heard.wait(Connected)
        message = operator.message()
        operator.broker.acknowledge(message)
        assert message.payload == expected
    lost.broker.stop()


def test_a_client_comes_back_after_the_broker_was_killed_and_started_again(rig: Rig, device: Client) -> None:
    device.start()
    rig.kill()
    lost = device.heard.wait(Disconnected)
    assert not lost.refused
    assert lost.retry_seconds <= 0.1
    assert not device.broker.publish(Publication("a", b"", 1))
    rig.restart()
    device.heard.wait(Connected)
    assert device.publish(Publication("a", b"", 2)) == 0x10


def test_a_publication_is_never_sent_again_by_the_connection_itself(rig: Rig, device: Client, operator: Client) -> None:
    device.start()
    operator.start()
    operator.subscribe("a/+")
    rig.hold("device")
    assert device.broker.publish(Publication("a/lost", b"", 1))
    rig.block("device")
    device.heard.wait(Disconnected)
    rig.unblock("device")
    device.heard.wait(Connected)
    device.publish(Publication("a/new", b"", 2))
    assert operator.message().topic == "a/new"


def test_nothing_is_told_after_stop(device: Client) -> None:
    device.start()
    device.broker.stop()
    told = list(device.heard.events)
    assert not device.broker.publish(Publication("a", b"", 1))
    assert device.heard.events == told


def test_a_client_can_publish_subscribe_and_stop_from_within_an_event(rig: Rig, operator: Client) -> None:
    operator.start()
    operator.subscribe("from/within")
    echo = Client(rig, "echo")
    accepted: list[bool] = []

    def on_event(event: BrokerEvent) -> None:
        match event:
            case Connected():
                accepted.append(echo.broker.subscribe((("ask", 1),)))
            case MessageReceived():
                echo.broker.acknowledge(event)
                accepted.append(echo.broker.publish(Publication("from/within", event.payload, 1, qos=0)))
            case PublicationAcknowledged():
                echo.broker.stop()
                accepted.append(echo.broker.publish(Publication("from/within", b"after stop", 2)))
            case _:
                pass
        echo.heard(event)

    echo.broker.start(on_event)
    echo.heard.wait(Subscribed)
    operator.publish(Publication("ask", b"question", 1))
    assert operator.message().payload == b"question"
    echo.heard.wait(PublicationAcknowledged)
    echo.broker.stop()
    assert accepted == [True, True, False]


def _let_seconds_pass(seconds: float) -> None:
    # The broker's clock is the one that must move on; there is nothing to observe meanwhile.
    time.sleep(seconds)
