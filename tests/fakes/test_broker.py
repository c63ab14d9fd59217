"""The fake broker without a thread: everything happens in `pump`, at a time that the test sets."""

import pytest

from edge.mqtt.broker import BrokerSettings, Connected, Disconnected, Publication, PublicationAcknowledged, Will
from tests.fakes.broker import FakeBroker, FakeHub, matches
from tests.support.recorder import Recorder


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub(clock: Clock) -> FakeHub:
    return FakeHub(clock=clock)


def connect(hub: FakeHub, client_id: str, will: Will | None = None) -> tuple[FakeBroker, Recorder]:
    heard = Recorder()
    broker = hub.broker(BrokerSettings("fake", 1, client_id, session_expiry_seconds=100, backoff_first_seconds=5))
    broker.start(heard, will)
    hub.pump()
    return broker, heard


def test_nothing_is_told_before_pump(hub: FakeHub) -> None:
    broker, heard = connect(hub, "pi-1")
    assert heard.events == [Connected(session_present=False, receive_maximum=20, maximum_packet_size=268_435_460)]
    broker.publish(Publication("a", b"", 1))
    assert len(heard.events) == 1
    assert hub.pump() == 1
    assert heard.events[-1] == PublicationAcknowledged(1, 0x10)


def test_a_hub_that_refuses_is_tried_again_after_the_delay(hub: FakeHub, clock: Clock) -> None:
    hub.refusing = True
    _, heard = connect(hub, "pi-1")
    assert isinstance(heard.events[0], Disconnected)
    assert heard.events[0].refused
    assert heard.events[0].retry_seconds == 5
    hub.refusing = False
    assert hub.pump() == 0
    clock.now += 5
    hub.pump()
    assert isinstance(heard.events[1], Connected)


def test_a_hub_that_never_acknowledges_takes_publications_all_the_same(hub: FakeHub) -> None:
    broker, heard = connect(hub, "pi-1")
    hub.never_acknowledge = True
    assert broker.publish(Publication("a", b"", 1))
    hub.pump()
    assert [publication.topic for publication in hub.published] == ["a"]
    assert not [event for event in heard.events if isinstance(event, PublicationAcknowledged)]


def test_a_will_is_published_after_its_delay_and_not_before(hub: FakeHub, clock: Clock) -> None:
    connect(hub, "pi-1", Will("status", b"OFFLINE", delay_seconds=30))
    hub.block("pi-1")
    clock.now += 29
    hub.pump()
    assert "status" not in hub.retained
    clock.now += 1
    hub.pump()
    assert "status" in hub.retained


def test_a_session_ends_when_its_expiry_has_passed(hub: FakeHub, clock: Clock) -> None:
    _, heard = connect(hub, "pi-1")
    hub.block("pi-1")
    clock.now += 101
    hub.unblock("pi-1")
    hub.pump()
    assert not heard.wait(Connected).session_present
    assert not heard.wait(Connected).session_present


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("a/+/c", "a//c", True),
        ("a/b/#", "a/c", False),
    ],
)
def test_filters_match_as_mqtt_says(pattern: str, topic: str, expected: bool) -> None:  # noqa: FBT001
    assert matches(pattern, topic) is expected
