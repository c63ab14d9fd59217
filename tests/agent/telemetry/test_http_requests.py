from contextlib import suppress
from http import HTTPStatus
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.agent.telemetry.http_requests import MAXIMUM_BODY, RefusedRequest, Request, RequestReader, response

POST = b"POST /v1/readings?promise=critical HTTP/1.1\r\nHost: edge\r\nContent-Length: 7\r\n\r\n" + b'{"a":1}'


def refused(data: bytes) -> HTTPStatus:
    reader = RequestReader()
    reader.feed(data)
    with pytest.raises(RefusedRequest) as caught:
        reader.next()
    return caught.value.status


@given(st.lists(st.integers(1, len(POST) * 2 - 1), max_size=6))
def test_requests_are_the_same_however_they_arrive(cuts: list[int]) -> None:
    data = POST * 2
    edges = [0, *sorted(cuts), len(data)]
    reader, found = RequestReader(), []
    for start, end in pairwise(edges):
        reader.feed(data[start:end])
        while (request := reader.next()) is not None:
            found.append(request)
    expected = Request("POST", "/v1/readings", {"promise": "critical"}, b'{"a":1}', keep_alive=True)
    assert found == [expected, expected]
    assert reader.idle


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    reader = RequestReader()
    reader.feed(data)
    with suppress(RefusedRequest):
        while reader.next() is not None:
            pass


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/2", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nno colon", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nName : x", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", HTTPStatus.BAD_REQUEST),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", HTTPStatus.LENGTH_REQUIRED),
        (b"POST / HTTP/1.1\r\nContent-Length: %d" % (MAXIMUM_BODY + 1), HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ],
)
def test_what_cannot_be_read_is_refused_before_a_body_is(head: bytes, status: HTTPStatus) -> None:
    assert refused(head + b"\r\n\r\n") is status


def test_a_head_without_an_end_is_refused() -> None:
    assert refused(b"GET / HTTP/1.1\r\n" + b"x" * 9000) is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


@pytest.mark.parametrize(
    ("version", "header", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_a_connection_is_kept_as_http_says(version: bytes, header: bytes, *, keeps: bool) -> None:
    reader = RequestReader()
    reader.feed(b"GET http://edge/x?y=1 HTTP/" + version + b"\r\n" + header + b"\r\n")
    request = reader.next()
    assert request is not None
    assert (request.path, request.query, request.keep_alive) == ("/x", {"y": "1"}, keeps)


def test_who_waits_for_a_word_before_the_body_is_told_once() -> None:
    reader = RequestReader()
    reader.feed(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert reader.next() is None
    assert (reader.wants_continue(), reader.wants_continue()) == (True, False)
    reader.feed(b"{}")
    request = reader.next()
    assert request is not None
    assert request.body == b"{}"


def test_an_answer_without_content_has_no_length() -> None:
    assert response(HTTPStatus.NO_CONTENT, keep_alive=True) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert response(HTTPStatus.NOT_FOUND, "no", keep_alive=False).endswith(
        b'Content-Length: 16\r\nConnection: close\r\n\r\n{"error": "no"}\n'
    )
