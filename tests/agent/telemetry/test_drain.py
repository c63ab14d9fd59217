"""The drain on a broker in memory: order, window, refusals, and nothing gone before its acknowledgement."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.agent.telemetry.boot_clocks import BootClocks
from edge.agent.telemetry.drain import Drain, DrainSettings
from edge.model.telemetry import BootClock, parse_batch
from edge.model.topics import Topics
from edge.mqtt.broker import (
    BrokerEvent,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Will,
)
from tests.fakes.outbox import BOOT, FakeOutbox

TOPICS = Topics("shop", "pi-1")


class Broker:
    """Takes publications, and answers when it is told to, or at once with `code`."""

    def __init__(self) -> None:
        self.sent: list[Publication] = []
        self.code: int | None = 0
        self.there = True
        self.turned_away = 0
        self.hear: Callable[[BrokerEvent], bool] = lambda _: False
        self.changed = threading.Condition()

    def start(self, on_event: Callable[[BrokerEvent], None], will: Will | None = None) -> None:
        raise NotImplementedError

    def publish(self, publication: Publication) -> bool:
        with self.changed:
            if not self.there:
                self.turned_away += 1
                return False
            self.sent.append(publication)
            self.changed.notify_all()
        if self.code is not None:
            self.hear(PublicationAcknowledged(publication.token, self.code))
        return True

    def subscribe(self, filters: tuple[tuple[str, int], ...]) -> bool:
        raise NotImplementedError

    def acknowledge(self, message: MessageReceived) -> None:
        raise NotImplementedError

    def set_will(self, will: Will) -> None:
        raise NotImplementedError

    def stop(self, farewell: Publication | None = None, timeout_seconds: float = 2.0) -> None:
        raise NotImplementedError

    def wait(self, count: int) -> list[Publication]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.sent) >= count, 20), len(self.sent)
            return list(self.sent)


class Clock:
    def __init__(self) -> None:
        self.good, self.wall = True, 1_000_000

    def wall_ms(self) -> int:
        return self.wall

    def monotonic(self) -> float:
        return 100.0

    def is_synchronized(self) -> bool:
        return self.good


class World:
    def __init__(self, folder: Path) -> None:
        self.outbox, self.broker, self.clock = FakeOutbox(), Broker(), Clock()
        self.clocks = BootClocks(folder / "boots.json", BOOT, self.clock)
        self.drain = Drain(self.outbox, self.broker, TOPICS, self.clocks, settings=DrainSettings(10**9))
        self.broker.hear = self.drain.hear
        self.drain.start()

    def connect(self, receive_maximum: int = 20, largest: int = 262_144) -> None:
        self.drain.hear(Connected(session_present=False, receive_maximum=receive_maximum, maximum_packet_size=largest))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.drain.close()


def first_of(publication: Publication) -> int:
    return parse_batch(publication.payload).first


def test_what_is_new_goes_before_what_waited_and_what_waited_is_marked(world: World) -> None:
    world.outbox.put_old(10)
    world.outbox.put_live(5)
    world.connect()
    world.outbox.wait_for_gone(15)
    batches = [parse_batch(publication.payload) for publication in world.broker.sent]
    assert [(batch.first, batch.historical) for batch in batches] == [(11, False), (1, True)]
    assert [publication.topic for publication in world.broker.sent] == ["edge/v1/shop/pi-1/tel/metrics"] * 2


def test_nothing_is_sent_without_a_connection_and_everything_with_one(world: World) -> None:
    world.outbox.put_live(5)
    world.drain.wake()
    time.sleep(0.1)
    assert world.broker.sent == []
    world.connect()
    world.outbox.wait_for_gone(5)


def test_a_connection_that_is_gone_is_asked_once_and_not_in_a_circle(world: World) -> None:
    world.outbox.changed = world.drain.wake
    world.broker.there = False
    world.connect()
    world.outbox.put_live(1)
    world.drain.wake()
    time.sleep(0.3)
    assert (world.broker.turned_away, world.broker.sent) == (1, [])
    world.broker.there = True
    world.connect()
    world.outbox.wait_for_gone(1)


def test_without_an_acknowledgement_nothing_is_gone_and_the_window_is_kept(world: World) -> None:
    world.broker.code = None
    for _ in range(40):
        world.outbox.put_live(1)
    world.connect(receive_maximum=10)
    world.broker.wait(6)
    time.sleep(0.1)
    assert (len(world.broker.sent), world.outbox.gone) == (6, [])
    for publication in list(world.broker.sent):
        world.drain.hear(PublicationAcknowledged(publication.token, 0))
    world.broker.wait(12)
    assert [block.first for block in world.outbox.wait_for_gone(6)] == [1, 2, 3, 4, 5, 6]


def test_an_acknowledgement_of_something_else_or_of_long_ago_is_passed_over(world: World) -> None:
    world.broker.code = None
    world.outbox.put_live(1)
    world.connect()
    (sent,) = world.broker.wait(1)
    for token in (1, sent.token + 1, sent.token - 1, 2**50):
        world.drain.hear(PublicationAcknowledged(token, 0))
    time.sleep(0.1)
    assert world.outbox.gone == []


def test_what_was_under_way_when_the_connection_broke_is_sent_again(world: World) -> None:
    world.broker.code = None
    world.outbox.put_live(3)
    world.outbox.put_old(2)
    world.connect()
    old = world.broker.wait(2)
    world.drain.hear(Disconnected("gone", refused=False, retry_seconds=1))
    for publication in old:
        world.drain.hear(PublicationAcknowledged(publication.token, 0))
    world.connect()
    again = world.broker.wait(4)[2:]
    assert sorted(map(first_of, again)) == sorted(map(first_of, old))
    assert world.outbox.gone == []


@pytest.mark.parametrize("code", [0x80, 0x83, 0x97, 0x10])
def test_a_refusal_keeps_the_block_and_makes_us_wait(world: World, code: int) -> None:
    world.broker.code = code
    world.outbox.put_live(1)
    world.connect()
    world.broker.wait(1)
    time.sleep(0.3)
    assert (len(world.broker.sent), world.outbox.gone) == (1, [])
    assert "the broker does not take metrics" in world.drain.problem
    world.broker.code = 0
    world.connect()
    world.outbox.wait_for_gone(1)
    assert world.drain.problem == ""


def test_after_a_refusal_one_block_asks_whether_the_rest_may_come(world: World) -> None:
    world.broker.code = 0x10
    for _ in range(5):
        world.outbox.put_live(1)
    world.connect()
    world.broker.wait(1)
    time.sleep(0.3)
    refused = len(world.broker.sent)
    world.broker.wait(refused + 1)
    time.sleep(0.1)
    assert len(world.broker.sent) == refused + 1
    world.broker.code = 0
    world.outbox.wait_for_gone(5)


def test_nobody_subscribed_counts_as_delivered_where_it_is_set_so(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.drain.close()
    drain = Drain(world.outbox, world.broker, TOPICS, world.clocks, settings=DrainSettings(keep_unsubscribed=False))
    world.broker.hear, world.broker.code = drain.hear, 0x10
    drain.start()
    world.outbox.put_live(1)
    drain.hear(Connected(session_present=False, receive_maximum=20, maximum_packet_size=10**6))
    world.outbox.wait_for_gone(1)
    drain.close()


def test_a_block_larger_than_the_broker_takes_goes_in_parts_and_is_gone_with_the_last(world: World) -> None:
    world.broker.code = None
    world.outbox.put_live(64, size=40)
    world.connect(largest=1536)
    sent = world.broker.wait(2)
    assert all(len(publication.payload) < 1536 for publication in sent)
    for publication in sent[:-1]:
        world.drain.hear(PublicationAcknowledged(publication.token, 0))
    time.sleep(0.1)
    assert world.outbox.gone == []
    world.drain.hear(PublicationAcknowledged(sent[-1].token, 0))
    world.outbox.wait_for_gone(64)


def test_a_boot_whose_clock_became_known_is_remembered_in_the_next(tmp_path: Path) -> None:
    clock = Clock()
    clock.good = False
    clocks = BootClocks(tmp_path / "boots.json", BOOT, clock)
    assert clocks.of(BOOT) == BootClock(900_000, synchronized=False)
    clock.good, clock.wall = True, 5_000_000
    assert clocks.of(BOOT) == BootClock(4_900_000, synchronized=True)
    clock.good, clock.wall = False, 7
    assert clocks.of(BOOT).synchronized
    later = BootClocks(tmp_path / "boots.json", "c" * 32, clock)
    assert later.of(BOOT) == BootClock(4_900_000, synchronized=True)
    assert later.of("d" * 32) == BootClock()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a":1}', b'{"a":["x",1]}', b"\xff"])
def test_a_damaged_note_of_clocks_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "boots.json").write_bytes(content)
    assert BootClocks(tmp_path / "boots.json", BOOT, Clock()).of(BOOT).synchronized
