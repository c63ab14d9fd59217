import json
from http import HTTPStatus
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.agent.telemetry.http_requests import RefusedRequest, Request
from edge.agent.telemetry.readings import Origin, records_of, stream_of
from edge.model.records import MAXIMUM_RECORD

ORIGIN: Final = Origin("task-1", "sensor")


def wrapped(reading: Any) -> dict[str, Any]:
    return {"t": 5000, "task": "task-1", "container": "sensor", "data": reading}


def refused(body: bytes) -> HTTPStatus:
    with pytest.raises(RefusedRequest) as caught:
        records_of(body, ORIGIN, 5000)
    return caught.value.status


@pytest.mark.parametrize(
    ("body", "readings"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'{\n  "a": "x y"\n}\n', [{"a": "x y"}]),
        (b'[{"a": 1}, {"b": 2.5}]', [{"a": 1}, {"b": 2.5}]),
        (b'{"a":1}\n{"a":2}\r\n\n{"a":3}\n', [{"a": 1}, {"a": 2}, {"a": 3}]),
        (b"[]", []),
        ('{"ort": "Köln"}'.encode(), [{"ort": "Köln"}]),
    ],
)
def test_an_object_an_array_and_lines_are_readings(body: bytes, readings: list[Any]) -> None:
    assert [json.loads(record) for record in records_of(body, ORIGIN, 5000)] == [wrapped(r) for r in readings]


def test_a_workload_cannot_say_who_it_is() -> None:
    (record,) = records_of(b'{"task":"other","t":1}', ORIGIN, 5000)
    assert json.loads(record) == wrapped({"task": "other", "t": 1})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", HTTPStatus.BAD_REQUEST),
        (b"  \n", HTTPStatus.BAD_REQUEST),
        (b"nonsense", HTTPStatus.BAD_REQUEST),
        (b"\xff\xfe", HTTPStatus.BAD_REQUEST),
        (b"7", HTTPStatus.BAD_REQUEST),
        (b"[1]", HTTPStatus.BAD_REQUEST),
        (b'[{"a":1}, 2]', HTTPStatus.BAD_REQUEST),
        (b'{"a":NaN}', HTTPStatus.BAD_REQUEST),
        (b'{"a":1e999}', HTTPStatus.BAD_REQUEST),
        (b'{"a":"\\ud800"}', HTTPStatus.BAD_REQUEST),
        (b'{"a":' + b"9" * 5000 + b"}", HTTPStatus.BAD_REQUEST),
        (b"[" * 200_000, HTTPStatus.BAD_REQUEST),
        (b'{"a":' * 100_000, HTTPStatus.BAD_REQUEST),
        (b'{"a":1}' * 501, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b'[{"a":1},{"b":"' + b"x" * MAXIMUM_RECORD + b'"}]', HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ],
)
def test_what_is_no_reading_is_refused_with_all_of_its_request(body: bytes, status: HTTPStatus) -> None:
    assert refused(body) is status


@given(st.lists(st.dictionaries(st.text(max_size=8), st.text(max_size=64) | st.integers() | st.none()), max_size=5))
def test_every_record_is_one_line(readings: list[dict[str, Any]]) -> None:
    body = json.dumps(readings).encode()
    try:
        records = records_of(body, ORIGIN, 5000)
    except RefusedRequest:
        # Half of a surrogate pair is text to Python and not to anybody else.
        assert "\\ud" in body.decode()
        return
    assert all(b"\n" not in record for record in records)
    assert [json.loads(record)["data"] for record in records] == readings


@pytest.mark.parametrize(
    ("method", "path", "query", "outcome"),
    [
        ("POST", "/v1/readings", {}, "readings"),
        ("POST", "/v1/readings", {"promise": "normal"}, "readings"),
        ("POST", "/v1/readings", {"promise": "critical"}, "readings-critical"),
        ("POST", "/v1/readings", {"promise": "maybe"}, HTTPStatus.BAD_REQUEST),
        ("GET", "/v1/readings", {}, HTTPStatus.METHOD_NOT_ALLOWED),
        ("POST", "/", {}, HTTPStatus.NOT_FOUND),
    ],
)
def test_the_promise_chooses_the_stream(
    method: str, path: str, query: dict[str, str], outcome: str | HTTPStatus
) -> None:
    request = Request(method, path, query, b"{}", keep_alive=True)
    if isinstance(outcome, HTTPStatus):
        with pytest.raises(RefusedRequest) as caught:
            stream_of(request)
        assert caught.value.status is outcome
    else:
        assert stream_of(request) == outcome
