"""What a workload publishes through its socket, and how it becomes records: pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from edge.agent.telemetry.http_requests import RefusedRequest, Request
from edge.agent.telemetry.metrics import encode
from edge.model.records import MAXIMUM_BLOCK_RECORDS, MAXIMUM_RECORD, READINGS, READINGS_CRITICAL

PATH: Final = "/v1/readings"
MAXIMUM_RECORDS: Final = MAXIMUM_BLOCK_RECORDS
"""Of one request."""
_STREAMS: Final = {"normal": READINGS.name, "critical": READINGS_CRITICAL.name}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose readings they are: known by the socket they came through, never by what they say."""

    task_id: str
    container: str


def stream_of(request: Request) -> str:
    """Return the stream a request's readings go to.

    Raises:
        RefusedRequest: It asks for something else than to publish readings.
    """
    if request.path != PATH:
        raise RefusedRequest(HTTPStatus.NOT_FOUND, f"there is nothing here; readings go to POST {PATH}")
    if request.method != "POST":
        raise RefusedRequest(HTTPStatus.METHOD_NOT_ALLOWED, f"readings go to POST {PATH}")
    promise = request.query.get("promise", "normal")
    if promise not in _STREAMS:
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"promise is {' or '.join(_STREAMS)}, not {promise[:32]!r}")
    return _STREAMS[promise]


def records_of(body: bytes, origin: Origin, at_ms: int) -> list[bytes]:
    """Return the readings of a body as records, all of them or none.

    A body is a JSON object, an array of objects, or objects one after the other (NDJSON).

    Raises:
        RefusedRequest: It is none of these, or holds too many or too large ones.
    """
    records: list[bytes] = []
    for reading in _readings(body):
        if not isinstance(reading, dict):
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"a reading is a JSON object, not {str(reading)[:32]!r}")
        if len(records) == MAXIMUM_RECORDS:
            message = f"a request has at most {MAXIMUM_RECORDS} readings"
            raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        try:
            record = encode({"t": at_ms, "task": origin.task_id, "container": origin.container, "data": reading})
        except (ValueError, RecursionError) as error:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"this cannot be written as JSON: {error}") from error
        if len(record) > MAXIMUM_RECORD:
            message = f"reading {len(records)} has {len(record)} bytes; a record has at most {MAXIMUM_RECORD}"
            raise RefusedRequest(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        records.append(record)
    return records


def _readings(body: bytes) -> Iterator[Any]:
    try:
        text = body.decode().strip()
        if not text:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, "the body is empty; send a JSON object")
        if text.startswith("["):
            yield from _DECODER.decode(text)
            return
        position = 0
        while position < len(text):
            reading, position = _DECODER.raw_decode(text, position)
            yield reading
            while position < len(text) and text[position].isspace():
                position += 1
    except (ValueError, RecursionError) as error:
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"this is not JSON: {error}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)
