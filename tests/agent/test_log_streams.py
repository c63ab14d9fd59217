import json
import queue
import threading
from collections.abc import Iterator
from typing import Any

from edge.agent.engine.log_streams import MAXIMUM_FOLLOWERS, WINDOW, LogRequest, LogStreams, read_lines
from edge.agent.engine.ports import LogLine
from edge.errors import EngineError
from edge.model.documents import CommandStatus
from edge.mqtt.broker import Publication

ONE = LogRequest((("app", "id-1"),), None)


class Lines:
    """An iterator of log lines that can be fed and closed from outside, as the port asks."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[LogLine | Exception | None] = queue.SimpleQueue()
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[LogLine]:
        return self

    def __next__(self) -> LogLine:
        line = self.queue.get()
        if isinstance(line, Exception):
            raise line
        if line is None:
            raise StopIteration
        return line

    def close(self) -> None:
        self.closed.set()
        self.queue.put(None)


class Engine:
    def __init__(self) -> None:
        self.lines = Lines()

    def logs(self, runtime_id: str, *, tail: int | None, follow: bool, since: str = "") -> Any:
        assert (runtime_id, since) == ("id-1", "")
        if follow:
            return self.lines
        return iter([line(n) for n in range(10)][-tail:] if tail else [])


class Broker:
    def __init__(self) -> None:
        self.documents: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def publish(self, publication: Publication) -> bool:
        assert publication.qos == 0
        self.documents.put(json.loads(publication.payload))
        return True


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time


def line(number: int) -> LogLine:
    return LogLine(f"2026-11-23T12:00:{number % 60:02}Z", "stdout", f"line {number}")


class Setting:
    def __init__(self) -> None:
        self.engine, self.broker, self.clock = Engine(), Broker(), Clock()
        self.streams = LogStreams(self.engine, self.broker, self.clock)  # type: ignore[arg-type]
        self.ended: queue.SimpleQueue[tuple[CommandStatus, str]] = queue.SimpleQueue()

    def follow(self, stream_id: str = "stream-1", request: LogRequest = ONE) -> bool:
        return self.streams.follow(stream_id, "topic", request, lambda *what: self.ended.put(what))

    def frames(self, number: int) -> list[dict[str, Any]]:
        frames: list[dict[str, Any]] = []
        while len(frames) < number:
            frames.extend(self.broker.documents.get(timeout=10)["frames"])
        return frames


def test_lines_arrive_in_order_with_numbers_and_the_end_says_why() -> None:
    setting = Setting()
    assert setting.follow()
    for number in range(100):
        setting.engine.lines.queue.put(line(number))
    frames = setting.frames(100)
    assert [frame["seq"] for frame in frames] == list(range(1, 101))
    assert frames[0] == {
        "seq": 1,
        "container": "app",
        "stream": "stdout",
        "time": "2026-11-23T12:00:00Z",
        "text": "line 0",
    }
    setting.engine.lines.queue.put(None)
    assert setting.broker.documents.get(timeout=10)["end"] == "the containers have stopped"
    assert setting.ended.get(timeout=10)[0] is CommandStatus.SUCCEEDED


def test_who_does_not_acknowledge_gets_a_window_full_and_no_more_until_he_does() -> None:
    setting = Setting()
    setting.follow()
    for number in range(WINDOW + 50):
        setting.engine.lines.queue.put(line(number))
    frames = setting.frames(WINDOW)
    assert len(frames) == WINDOW
    assert setting.broker.documents.empty()
    setting.streams.heard("stream-1", json.dumps({"ack": WINDOW}).encode())
    assert len(setting.frames(50)) == 50
    setting.streams.close()
    setting.ended.get(timeout=10)


def test_a_follower_that_is_gone_is_given_up_after_a_while() -> None:
    setting = Setting()
    setting.follow()
    setting.clock.time = 31.0
    setting.engine.lines.queue.put(line(1))
    assert setting.ended.get(timeout=10) == (CommandStatus.SUCCEEDED, "nobody acknowledged")
    assert setting.engine.lines.closed.wait(10)


def test_closing_frees_the_connection_to_the_engine() -> None:
    setting = Setting()
    setting.follow()
    setting.streams.heard("stream-1", b'{"close": true}')
    assert setting.ended.get(timeout=10)[1] == "closed"
    assert setting.engine.lines.closed.wait(10)


def test_nonsense_from_the_operator_changes_nothing() -> None:
    setting = Setting()
    setting.follow()
    for payload in (b"", b"[]", b'{"ack": "x"}', b"{" * 2000, b'{"ack": 99999999}', b"\xff"):
        setting.streams.heard("stream-1", payload)
    setting.streams.heard("another", b'{"close": true}')
    setting.engine.lines.queue.put(line(1))
    assert setting.frames(1)[0]["text"] == "line 1"
    setting.streams.close()
    setting.ended.get(timeout=10)


def test_a_log_that_breaks_off_ends_with_the_reason() -> None:
    setting = Setting()
    setting.follow()
    setting.engine.lines.queue.put(EngineError("the service went away"))
    assert setting.broker.documents.get(timeout=10)["end"] == "the service went away"


def test_there_is_a_most_of_followers() -> None:
    setting = Setting()
    assert all(setting.follow(f"stream-{n}") for n in range(MAXIMUM_FOLLOWERS))
    assert not setting.follow("one-more")
    setting.streams.close()


def test_the_newest_lines_are_read_and_it_is_said_when_there_were_more() -> None:
    engine = Engine()
    answer = read_lines(engine, LogRequest((("app", "id-1"),), 3))  # type: ignore[arg-type]
    assert [one["text"] for one in answer["lines"]] == ["line 7", "line 8", "line 9"]
    everything = read_lines(engine, ONE)  # type: ignore[arg-type]
    assert (len(everything["lines"]), everything["truncated"]) == (10, False)
