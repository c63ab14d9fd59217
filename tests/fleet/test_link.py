import json
import threading
from collections.abc import Iterator

import pytest

from edge.errors import BrokerError, BrokerUnavailableError, DeadlineError
from edge.fleet.link import FleetLink, new_client_id
from edge.fleet.messages import LinkBack, LinkLost, Reported, Unreadable
from edge.model.topics import Topics
from edge.mqtt.broker import BrokerSettings, Publication
from tests.fakes.broker import FakeHub

REPORTED = "edge/v1/shop/pi-1/reported"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub(threaded=True)
    yield made
    made.close()


def settings() -> BrokerSettings:
    return BrokerSettings("broker.example", 8884, "operator-1", session_expiry_seconds=0, backoff_first_seconds=0.01)


@pytest.fixture
def link(hub: FakeHub) -> Iterator[FleetLink]:
    with FleetLink(settings(), hub.broker) as made:
        yield made


def say(hub: FakeHub, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> None:
    hub.publish(Publication(topic, payload, 0, retain=retain))


def test_a_broker_that_is_away_is_told_at_once(hub: FakeHub) -> None:
    hub.up = False
    with pytest.raises(BrokerUnavailableError, match=r"cannot reach the broker at broker\.example:8884: connection"):
        FleetLink(settings(), hub.broker).connect()


def test_a_broker_that_refuses_is_told_apart_from_one_that_is_away(hub: FakeHub) -> None:
    hub.refusing = True
    with pytest.raises(BrokerError, match="refuses this operator") as error:
        FleetLink(settings(), hub.broker).connect()
    assert not isinstance(error.value, BrokerUnavailableError)


def test_all_that_is_retained_is_returned_and_nothing_is_waited_for(hub: FakeHub, link: FleetLink) -> None:
    for number in range(100):
        say(hub, f"edge/v1/shop/pi-{number}/reported", json.dumps({"revision": number}).encode(), retain=True)
    found = link.retained("shop", ["edge/v1/shop/+/reported"])
    assert sorted(message.document["revision"] for message in found if isinstance(message, Reported)) == [*range(100)]
    assert link.retained("shop", ["edge/v1/shop/+/status"]) == []


def test_a_publication_is_made_again_when_the_connection_breaks_before_its_acknowledgement(
    hub: FakeHub, link: FleetLink
) -> None:
    hub.never_acknowledge = True

    def break_it() -> None:
        while not hub.published:
            pass
        hub.never_acknowledge = False
        hub.drop("operator-1")

    breaker = threading.Thread(target=break_it)
    breaker.start()
    link.publish("edge/v1/shop/pi-1/desired", b"state", retain=True)
    breaker.join()
    assert [publication.payload for publication in hub.published] == [b"state", b"state"]


def test_a_subscription_stands_again_after_a_reconnect(hub: FakeHub, link: FleetLink) -> None:
    link.subscribe((REPORTED, 1))
    hub.drop("operator-1")
    messages = link.messages(10)
    assert isinstance(next(messages), LinkLost)
    assert isinstance(next(messages), LinkBack)
    say(hub, REPORTED, b'{"revision": 3}', retain=True)
    assert next(messages) == Reported(Topics("shop", "pi-1"), {"revision": 3})


def test_a_publication_the_broker_refuses_is_an_error(link: FleetLink) -> None:
    with pytest.raises(BrokerError, match="refuses to take"):
        link.publish("edge/v1/#", b"")


def test_a_subscription_the_broker_refuses_is_an_error(link: FleetLink) -> None:
    with pytest.raises(BrokerError, match="refuses the subscription to edge/#/v1"):
        link.subscribe(("edge/#/v1", 1))


def test_messages_end_when_the_time_is_over(link: FleetLink) -> None:
    assert list(link.messages(0.01)) == []


def test_a_message_that_came_while_something_else_was_waited_for_is_not_lost(hub: FakeHub, link: FleetLink) -> None:
    link.subscribe((REPORTED, 1))
    say(hub, REPORTED, b'{"revision": 1}')
    link.publish("edge/v1/shop/pi-1/desired", b"x")
    link.publish("edge/v1/shop/pi-1/desired", b"y")
    assert isinstance(next(link.messages(10)), Reported)


def test_what_cannot_be_read_is_passed_on_as_such(hub: FakeHub, link: FleetLink) -> None:
    link.subscribe(("edge/v1/#", 1))
    say(hub, REPORTED, b"\xff")
    message = next(link.messages(10))
    assert isinstance(message, Unreadable)
    assert message.topic == REPORTED


def test_a_broker_that_never_acknowledges_is_given_up(hub: FakeHub) -> None:
    hub.never_acknowledge = True
    with (
        FleetLink(settings(), hub.broker, answer_seconds=0.05) as link,
        pytest.raises(DeadlineError, match="did not acknowledge"),
    ):
        link.publish("edge/v1/shop/pi-1/desired", b"")


def test_two_command_lines_never_have_the_same_client_id() -> None:
    assert len({new_client_id() for _ in range(100)}) == 100
