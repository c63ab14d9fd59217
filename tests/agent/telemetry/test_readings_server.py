import errno
import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from edge.agent.telemetry.readings import Origin
from edge.agent.telemetry.readings_server import ReadingsServer
from edge.errors import StoreError, StoreFullError
from edge.model.container_spec import TELEMETRY_SOCKET_NAME
from tests.fakes.records import FakeRecords

SENSOR: Final = Origin("task-1", "sensor")
OTHER: Final = Origin("task-2", "sensor")


class Ticker:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Client(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("edge", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        # As a container has it: a short path, whatever the folder's.
        folder = os.open(self._path, os.O_PATH)
        self.sock.connect(f"/proc/self/fd/{folder}/{TELEMETRY_SOCKET_NAME}")
        os.close(folder)

    def post(self, body: bytes | str, query: str = "") -> tuple[int, str]:
        self.request("POST", f"/v1/readings{query}", body)
        answer = self.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


@pytest.fixture
def clock() -> Ticker:
    return Ticker()


@pytest.fixture
def server(tmp_path: Path, records: FakeRecords, clock: Ticker) -> Iterator[ReadingsServer]:
    # Longer than a socket's path may be.
    running = ReadingsServer(tmp_path / ("long" * 30) / "telemetry", records, clock, records_per_second=10)
    yield running
    running.close()


@pytest.fixture
def client(server: ReadingsServer) -> Iterator[Client]:
    connected = Client(server.open(SENSOR))
    yield connected
    connected.close()


def test_readings_are_wrapped_with_whose_they_are_and_when(client: Client, records: FakeRecords) -> None:
    assert client.post('{"celsius": 21.5}') == (204, "")
    expected = {"t": 100_000, "task": "task-1", "container": "sensor", "data": {"celsius": 21.5}}
    assert records.streams == {"readings": [expected]}


def test_one_connection_carries_many_requests(client: Client, records: FakeRecords) -> None:
    assert [client.post(f'{{"n": {n}}}')[0] for n in range(20)] == [204] * 20
    assert [record["data"]["n"] for record in records.streams["readings"]] == list(range(20))


def test_a_critical_reading_is_answered_only_after_it_was_stored(client: Client, records: FakeRecords) -> None:
    stored, may_go_on = threading.Event(), threading.Event()

    def slow(stream: str) -> None:
        assert stream == "readings-critical"
        stored.set()
        assert may_go_on.wait(20)

    records.put_hook = slow
    client.request("POST", "/v1/readings?promise=critical", '{"a": 1}')
    assert stored.wait(20)
    client.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.sock.recv(1, socket.MSG_PEEK)
    client.sock.settimeout(20)
    may_go_on.set()
    assert client.getresponse().status == 204
    assert len(records.streams["readings-critical"]) == 1


def test_a_critical_reading_the_disk_did_not_take_is_not_called_stored(client: Client, records: FakeRecords) -> None:
    records.problem = "No space left on device"
    assert client.post("{}", "?promise=critical") == (202, '{"error": "kept in memory: No space left on device"}\n')
    assert client.post("{}")[0] == 204
    records.problem = ""
    assert client.post("{}", "?promise=critical")[0] == 204


def test_what_is_refused_says_why_and_the_connection_goes_on(client: Client, records: FakeRecords) -> None:
    status, text = client.post("[1, 2]")
    assert status == 400
    assert "a reading is a JSON object" in json.loads(text)["error"]
    client.request("GET", "/v1/readings")
    answer = client.getresponse()
    answer.read()
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert client.post("{}")[0] == 204
    assert len(records.streams["readings"]) == 1


def test_too_many_are_put_off_and_nobody_else_is(
    server: ReadingsServer, client: Client, records: FakeRecords, clock: Ticker
) -> None:
    assert client.post('{"a":1}' * 500)[0] == 204
    for expected in ("1", "2"):
        client.request("POST", "/v1/readings", '{"a":1}' * 25)
        answer = client.getresponse()
        answer.read()
        assert (answer.status, answer.headers["Retry-After"]) == (429, expected)
        clock.now += int(expected)
    other = Client(server.open(OTHER))
    assert other.post("{}")[0] == 204
    other.close()
    assert client.post('{"a":1}' * 25)[0] == 204
    assert len(records.streams["readings"]) == 526


def test_a_large_reading_counts_as_many(client: Client) -> None:
    assert client.post(json.dumps({"a": "x" * 60_000}))[0] == 204
    assert client.post(b"\n".join([json.dumps({"a": "x" * 40_000}).encode()] * 12))[0] == 429


def test_a_store_that_takes_nothing_is_told_and_survived(client: Client, records: FakeRecords) -> None:
    records.refuse = StoreFullError("the disk is full")
    assert client.post("{}") == (503, '{"error": "the disk is full"}\n')
    records.refuse = None
    assert client.post("{}")[0] == 204


def test_a_body_is_asked_for_when_its_sender_waits(client: Client, records: FakeRecords) -> None:
    client.connect()
    client.sock.sendall(b"POST /v1/readings HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sock.sendall(b"{}")
    assert client.sock.recv(100) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert len(records.streams["readings"]) == 1


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"x" * 10_000, b"\x00" * 9000])
def test_nonsense_is_answered_and_hung_up_on(client: Client, data: bytes) -> None:
    client.connect()
    client.sock.sendall(data)
    answer = b"".join(iter(lambda: client.sock.recv(1000), b""))
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"Connection: close" in answer


def test_a_request_that_stops_half_way_is_dropped_in_time(
    server: ReadingsServer, client: Client, clock: Ticker
) -> None:
    client.connect()
    client.sock.sendall(b"POST /v1/readings HTTP/1.1\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
    assert client.sock.recv(100).startswith(b"HTTP/1.1 100")
    clock.now += 31
    # Any news lets the thread look at the time, which in a test stands still while it sleeps.
    server.open(OTHER)
    assert client.sock.recv(100) == b""


def test_many_large_requests_at_once_do_not_fill_the_memory(server: ReadingsServer) -> None:
    folder = server.open(SENSOR)
    clients = [Client(folder) for _ in range(5)]
    head = b"POST /v1/readings HTTP/1.1\r\nContent-Length: 1048576\r\nExpect: 100-continue\r\n\r\n"
    answers = []
    for client in clients:
        client.connect()
        client.sock.sendall(head)
        answers.append(client.sock.recv(1000).split(b"\r\n")[0])
    assert answers == [b"HTTP/1.1 100 Continue"] * 4 + [b"HTTP/1.1 503 Service Unavailable"]
    clients[0].close()
    late = Client(folder)
    while True:
        late.connect()
        late.sock.sendall(head)
        if late.sock.recv(1000).startswith(b"HTTP/1.1 100"):
            break
        late.close()
    for client in (*clients, late):
        client.close()


def test_whoever_is_quiet_makes_room(server: ReadingsServer, records: FakeRecords) -> None:
    folders = [server.open(Origin(f"task-{n}", "sensor")) for n in range(13)]
    clients = [Client(folder) for folder in folders for _ in range(5)]
    for client in clients:
        assert client.post("{}")[0] == 204
    assert clients[0].sock.recv(1) == b""
    assert clients[1].post("{}")[0] == 204
    assert len(records.streams["readings"]) == 66
    for client in clients:
        client.close()


def test_a_container_cannot_take_the_connections_of_the_others(server: ReadingsServer) -> None:
    other = Client(server.open(OTHER))
    assert other.post("{}")[0] == 204
    greedy = [Client(server.open(SENSOR)) for _ in range(100)]
    for client in greedy:
        assert client.post("{}")[0] == 204
    assert greedy[83].sock.recv(1) == b""
    assert greedy[84].post("{}")[0] == 204
    assert other.post("{}")[0] == 204
    for client in (other, *greedy):
        client.close()


def test_whoever_publishes_too_much_is_not_heard_for_a_while(
    server: ReadingsServer, client: Client, clock: Ticker
) -> None:
    other = Client(server.open(OTHER))
    assert client.post("{}" * 500)[0] == 204
    assert client.post("{}")[0] == 429
    client.request("POST", "/v1/readings", "{}")
    again = Client(server.open(SENSOR))
    again.request("POST", "/v1/readings", "{}")
    assert other.post("{}")[0] == 204
    for waiting in (client, again):
        waiting.sock.settimeout(0)
        with pytest.raises(BlockingIOError):
            waiting.sock.recv(1, socket.MSG_PEEK)
        waiting.sock.settimeout(20)
    clock.now += 2
    assert [waiting.getresponse().status for waiting in (client, again)] == [204, 204]
    for each in (other, again):
        each.close()


def test_nonsense_counts_as_much_as_readings(client: Client) -> None:
    large = b"[" + b"1" * 200_000
    assert [client.post(large)[0] for _ in range(3)] == [400, 400, 429]


def test_a_restarted_agent_s_socket_is_seen_in_the_same_folder(
    tmp_path: Path, records: FakeRecords, clock: Ticker
) -> None:
    first = ReadingsServer(tmp_path, records, clock, records_per_second=10)
    folder = first.open(SENSOR)
    inode = folder.stat().st_ino
    client = Client(folder)
    assert client.post("{}")[0] == 204
    first.close()
    client.close()
    with pytest.raises(ConnectionRefusedError):
        client.connect()
    client.close()
    second = ReadingsServer(tmp_path, records, clock, records_per_second=10)
    second.start()
    assert not second.folder_of(OTHER).exists()
    assert client.post("{}")[0] == 204
    assert folder.stat().st_ino == inode
    client.close()
    second.close()


def test_a_released_task_leaves_nothing(server: ReadingsServer, client: Client) -> None:
    folder = server.open(OTHER)
    server.release(OTHER.task_id)
    server.release("unknown")
    assert not folder.parent.exists()
    assert client.post("{}")[0] == 204
    assert server.open(OTHER) == folder
    again = Client(folder)
    assert again.post("{}")[0] == 204
    again.close()


def test_every_user_of_a_container_may_write_and_none_may_change_the_folder(server: ReadingsServer) -> None:
    folder = server.open(SENSOR)
    assert (folder / TELEMETRY_SOCKET_NAME).stat().st_mode & 0o777 == 0o666
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, records: FakeRecords, clock: Ticker) -> None:
    (tmp_path / "file").write_text("")
    server = ReadingsServer(tmp_path / "file", records, clock, records_per_second=10)
    with pytest.raises(StoreError, match="socket for readings") as caught:
        server.open(SENSOR)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOTDIR
    server.close()
