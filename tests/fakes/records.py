"""The outbox as far as collecting sees it, in memory."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge.errors import InvalidInputError
from edge.model.records import MAXIMUM_RECORD, STREAMS, Promise


@dataclass(frozen=True)
class FakeState:
    stream: str
    problem: str


class FakeRecords:
    """Fulfils `Records`; `refuse` is raised by `put` once it is set, for what a test wants to go wrong."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Any]] = {}
        self.latest: dict[tuple[str, str], Any] = {}
        self.batches: list[tuple[str, int]] = []
        self.flushed = 0
        self.problem = ""
        self.refuse: Exception | None = None
        self.put_hook: Callable[[str], None] = lambda _stream: None
        self._changed = threading.Condition()

    def put(self, stream: str, records: Sequence[bytes]) -> None:
        assert any(known.name == stream and known.promise is not Promise.LATEST for known in STREAMS)
        self.put_hook(stream)
        parsed = [_parse(record) for record in records]
        with self._changed:
            if self.refuse is not None:
                raise self.refuse
            self.streams.setdefault(stream, []).extend(parsed)
            self.batches.append((stream, len(parsed)))
            self._changed.notify_all()

    def put_latest(self, stream: str, key: str, record: bytes) -> None:
        with self._changed:
            self.latest[stream, key] = _parse(record)

    def facts(self) -> tuple[FakeState, ...]:
        return tuple(FakeState(stream.name, self.problem) for stream in STREAMS)

    def flush(self) -> None:
        with self._changed:
            self.flushed += 1

    def wait_for(self, stream: str, enough: Callable[[list[Any]], bool], seconds: float = 20.0) -> list[Any]:
        """Wait until the stream's records are enough, and return them."""
        with self._changed:
            there = self._changed.wait_for(lambda: enough(self.streams.get(stream, [])), seconds)
            assert there, f"{stream}: {self.streams.get(stream, [])[-5:]}"
            return list(self.streams[stream])


def _parse(record: bytes) -> Any:
    if b"\n" in record or len(record) > MAXIMUM_RECORD:
        raise InvalidInputError("a record is one JSON object of at most 64 KiB, without a newline")
    parsed = json.loads(record)
    if not isinstance(parsed, dict):
        raise InvalidInputError("a record is a JSON object")
    return parsed
