"""One connection of a workload that publishes, and what all of them together may take."""

import logging
import math
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from edge.agent.telemetry.http_requests import CONTINUE, RefusedRequest, Request, RequestReader, response
from edge.agent.telemetry.ports import Records
from edge.agent.telemetry.rate_limit import TokenBucket
from edge.agent.telemetry.readings import MAXIMUM_RECORDS, PATH, Origin, records_of, stream_of
from edge.errors import EdgeError, InvalidInputError
from edge.model.records import READINGS_CRITICAL

_READ_BYTES: Final = 64 * 1024
_REQUEST_SECONDS: Final = 30.0
"""How long a request may take to arrive once it has begun: a socket of the same machine is quick."""
_MOST_WAITING_BYTES: Final = 4 * 1024 * 1024
"""Of all requests that are being read: four of the largest."""
_BURST_SECONDS: Final = 10
_LONGEST_HOLD_SECONDS: Final = 1.0
_COUNTED_BYTES: Final = 1024
_MOST_BUCKETS: Final = 1024

_log = logging.getLogger(__name__)


class Admission:
    """What all connections share: where readings go, how much of them a task may bring, how much memory there is."""

    def __init__(self, records: Records, monotonic: Callable[[], float], records_per_second: int) -> None:
        self.records = records
        self.monotonic = monotonic
        self.waiting_bytes = 0
        self._rate = records_per_second
        self._buckets: dict[str, TokenBucket] = {}

    def wait_seconds(self, origin: Origin, count: int) -> float:
        """Return after how long so much of the task may come; 0 for now."""
        return self._bucket(origin).wait_for(count, self.monotonic())

    def take(self, origin: Origin, count: int) -> None:
        """Count what came."""
        self._bucket(origin).take(count, self.monotonic())

    def _bucket(self, origin: Origin) -> TokenBucket:
        now = self.monotonic()
        bucket = self._buckets.pop(origin.task_id, None)
        if bucket is None:
            bucket = TokenBucket(self._rate, max(MAXIMUM_RECORDS, self._rate * _BURST_SECONDS), now)
        self._buckets[origin.task_id] = bucket
        while len(self._buckets) > _MOST_BUCKETS:
            self._buckets.pop(next(iter(self._buckets)))
        return bucket

    def problem_of(self, stream: str) -> str:
        """Return why what was put into a stream is not on the disk; empty when it is."""
        return next((state.problem for state in self.records.facts() if state.stream == stream), "")


class Connection:
    """Reads requests, hands over their readings, answers.

    Attributes:
        origin: Whose it is.
        deadline: When the request that has begun must be there; None while nothing has.
        hold_until: When its container may be heard again; it publishes too much. None while it does not.
    """

    def __init__(self, connected: socket.socket, origin: Origin, admission: Admission) -> None:
        self._socket = connected
        self.origin = origin
        self._admission = admission
        self._reader = RequestReader()
        self._reserved = 0
        self.deadline: float | None = None
        self.hold_until: float | None = None

    def readable(self) -> bool:
        """Take what arrived and answer what is whole; False when the connection is at its end."""
        try:
            return self._read()
        except OSError:
            return False

    def _read(self) -> bool:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        try:
            self._reader.feed(data)
            return self._answer_all()
        except RefusedRequest as refusal:
            self._send(response(refusal.status, str(refusal), keep_alive=False))
            return False

    def forget(self) -> None:
        """Give back the memory that was reserved for a request that will not come."""
        self._reserve(0)

    def _answer_all(self) -> bool:
        while (request := self._reader.next()) is not None:
            self._send(self._answer(request))
            if not request.keep_alive:
                return False
        self._reserve(self._reader.expected)
        if self._admission.waiting_bytes > _MOST_WAITING_BYTES:
            busy = response(
                HTTPStatus.SERVICE_UNAVAILABLE, "too much at once", keep_alive=False, headers=("Retry-After: 1",)
            )
            self._send(busy)
            return False
        if self._reader.idle:
            self.deadline = None
        elif self.deadline is None:
            self.deadline = self._admission.monotonic() + _REQUEST_SECONDS
        if self._reader.wants_continue():
            self._send(CONTINUE)
        return True

    def _answer(self, request: Request) -> bytes:
        keep_alive = request.keep_alive
        # What is refused counts as well, and nothing is parsed that would not pass: else who publishes nonsense could
        # keep a core busy.
        count = max(1, len(request.body) // _COUNTED_BYTES)
        if (wait := self._admission.wait_seconds(self.origin, count)) > 0:
            return self._too_many(wait, keep_alive=keep_alive)
        try:
            stream = stream_of(request)
            at_ms = int(self._admission.monotonic() * 1000)
            records = records_of(request.body, self.origin, at_ms)
        except RefusedRequest as refusal:
            self._admission.take(self.origin, count)
            allow = ("Allow: POST",) if refusal.status is HTTPStatus.METHOD_NOT_ALLOWED else ()
            return response(refusal.status, str(refusal), keep_alive=keep_alive, headers=allow)
        # A large one counts once for each KiB that it begins, so that the rate bounds bytes too.
        count = max(count, sum(-(-len(record) // _COUNTED_BYTES) for record in records))
        if (wait := self._admission.wait_seconds(self.origin, count)) > 0:
            return self._too_many(wait, keep_alive=keep_alive)
        self._admission.take(self.origin, count)
        return self._store(stream, records, keep_alive=keep_alive)

    def _store(self, stream: str, records: list[bytes], *, keep_alive: bool) -> bytes:
        try:
            if records:
                self._admission.records.put(stream, records)
        except InvalidInputError as error:
            return response(HTTPStatus.BAD_REQUEST, str(error), keep_alive=keep_alive)
        except EdgeError as error:
            _log.warning("readings posted to %s of task %s are not taken: %s", PATH, self.origin.task_id, error)
            later = ("Retry-After: 5",)
            return response(HTTPStatus.SERVICE_UNAVAILABLE, str(error), keep_alive=keep_alive, headers=later)
        if stream == READINGS_CRITICAL.name and (problem := self._admission.problem_of(stream)):
            # They will be on the disk when it takes something again: to refuse them would have them come twice.
            return response(HTTPStatus.ACCEPTED, f"kept in memory: {problem}", keep_alive=keep_alive)
        return response(HTTPStatus.NO_CONTENT, keep_alive=keep_alive)

    def _too_many(self, wait: float, *, keep_alive: bool) -> bytes:
        self.hold_until = self._admission.monotonic() + min(wait, _LONGEST_HOLD_SECONDS)
        after = (f"Retry-After: {math.ceil(wait)}",)
        return response(HTTPStatus.TOO_MANY_REQUESTS, "too many readings", keep_alive=keep_alive, headers=after)

    def _reserve(self, size: int) -> None:
        self._admission.waiting_bytes += size - self._reserved
        self._reserved = size

    def _send(self, data: bytes) -> None:
        # Answers are small: whoever lets the socket's buffer fill up with them does not read, and is hung up on.
        if self._socket.send(data) < len(data):
            raise ConnectionError("the peer does not read its answers")
