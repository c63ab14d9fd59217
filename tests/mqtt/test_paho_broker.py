"""What only a real connection can go through: TLS, dead peers, and brokers that break the protocol."""

import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.mqtt.broker import (
    BrokerEvent,
    BrokerSettings,
    Connected,
    Disconnected,
    MessageReceived,
    Publication,
    PublicationAcknowledged,
    Subscribed,
)
from edge.mqtt.paho_broker import MAXIMUM_WAITING, PahoBroker
from tests.support.certificates import CertificateAuthority, Identity
from tests.support.mosquitto import Mosquitto, free_port
from tests.support.recorder import Recorder

CONNACK = b"\x20\x03\x00\x00\x00"
ONE_PUBLISH = b"\x32\x07\x00\x01a\x00\x01\x00x"


@pytest.fixture
def heard() -> Recorder:
    return Recorder()


@pytest.fixture
def start(heard: Recorder) -> Iterator[Callable[[BrokerSettings], PahoBroker]]:
    started: list[PahoBroker] = []

    def begin(settings: BrokerSettings) -> PahoBroker:
        broker = PahoBroker(replace(settings, backoff_first_seconds=0.05, backoff_last_seconds=0.1))
        broker.start(heard)
        started.append(broker)
        return broker

    yield begin
    for broker in started:
        broker.stop()


Start = Callable[[BrokerSettings], PahoBroker]


# ---- TLS


@dataclass
class Secured:
    """A Mosquitto with TLS, and the settings of a client it accepts."""

    authority: CertificateAuthority
    settings: BrokerSettings


OPENSSL = """openssl_conf = all
[all]
ssl_conf = protocols
[protocols]
system_default = versions
[versions]
MinProtocol = TLSv1
MaxProtocol = {newest}
CipherString = ALL:@SECLEVEL=0
"""


@pytest.fixture
def secured(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Secured]:
    authority = CertificateAuthority(tmp_path / "ca")
    server, device = authority.server(), authority.device("pi-1")
    port = free_port()
    config = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        f"cafile {authority.ca_file}",
        f"certfile {server.cert_file}",
        f"keyfile {server.key_file}",
        "require_certificate true",
        "user root",
        "tls_version tlsv1.1",
    ]
    # Mosquitto chooses the oldest version it takes; only OpenSSL's own configuration can choose the newest.
    openssl = tmp_path / "openssl.cnf"
    openssl.write_text(OPENSSL.format(newest=getattr(request, "param", "TLSv1.3")))
    environment = {"OPENSSL_CONF": str(openssl)}
    with Mosquitto(tmp_path / "broker", "\n".join(config) + "\n", (port,), environment):
        settings = BrokerSettings("127.0.0.1", port, "pi-1", authority.ca_file, device.cert_file, device.key_file)
        yield Secured(authority, settings)


@pytest.mark.mosquitto
@pytest.mark.parametrize(("secured", "version"), [("TLSv1.3",) * 2, ("TLSv1.2",) * 2], indirect=["secured"])
def test_both_tls_versions_work_with_a_client_certificate(
    secured: Secured, version: str, heard: Recorder, start: Start
) -> None:
    assert _spoken_by(secured.settings) == version
    broker = start(secured.settings)
    heard.wait(Connected)
    assert broker.publish(Publication("a", b"x" * 100_000, 1))
    assert heard.wait(PublicationAcknowledged) == PublicationAcknowledged(1, 0x10)


@pytest.mark.mosquitto
@pytest.mark.parametrize("secured", ["TLSv1.1"], indirect=True)
def test_an_old_tls_version_is_refused(secured: Secured, heard: Recorder, start: Start) -> None:
    start(secured.settings)
    refusal = heard.wait(Disconnected)
    assert refusal.refused
    assert "TLS" in refusal.reason


@pytest.mark.mosquitto
def test_a_broker_of_another_authority_is_not_trusted(
    secured: Secured, tmp_path: Path, heard: Recorder, start: Start
) -> None:
    other = CertificateAuthority(tmp_path / "other", "other CA")
    start(replace(secured.settings, ca_file=other.ca_file))
    refusal = heard.wait(Disconnected)
    assert refusal.refused
    assert "certificate" in refusal.reason


@pytest.mark.mosquitto
def test_a_broker_of_another_name_is_not_trusted(secured: Secured, heard: Recorder, start: Start) -> None:
    start(replace(secured.settings, host="127.0.0.2", port=_forwarder_to(secured.settings.port)))
    assert heard.wait(Disconnected).refused


@pytest.mark.mosquitto
def test_a_certificate_that_ended_before_what_time_it_is_at_the_least_is_refused(
    secured: Secured, heard: Recorder, start: Start
) -> None:
    least = datetime.now(UTC) + timedelta(days=2)
    start(replace(secured.settings, least_time=lambda: least))
    refusal = heard.wait(Disconnected)
    assert refusal.refused
    assert "it expired on" in refusal.reason


@pytest.mark.mosquitto
def test_while_the_clock_is_in_doubt_a_certificate_still_needs_its_authority_and_name(
    secured: Secured, tmp_path: Path, heard: Recorder, start: Start
) -> None:
    other = CertificateAuthority(tmp_path / "other", "other CA")
    start(replace(secured.settings, ca_file=other.ca_file, least_time=lambda: datetime(1970, 1, 1, tzinfo=UTC)))
    assert "certificate" in heard.wait(Disconnected).reason


@pytest.mark.mosquitto
@pytest.mark.parametrize("certificate", ["none", "foreign"])
def test_a_certificate_that_the_broker_refuses_is_told_as_a_refusal(
    secured: Secured, tmp_path: Path, heard: Recorder, start: Start, certificate: str
) -> None:
    foreign: Identity = CertificateAuthority(tmp_path / "other", "other CA").device("pi-1")
    given = (None, None) if certificate == "none" else (foreign.cert_file, foreign.key_file)
    start(replace(secured.settings, cert_file=given[0], key_file=given[1]))
    refusal = heard.wait(Disconnected)
    assert refusal.refused
    assert "TLS" in refusal.reason


def test_a_missing_certificate_file_is_told_and_tried_again(tmp_path: Path, heard: Recorder, start: Start) -> None:
    start(BrokerSettings("127.0.0.1", 1, "pi-1", tmp_path / "nowhere.crt"))
    for _ in range(2):
        assert "nowhere.crt" in heard.wait(Disconnected).reason


@pytest.mark.mosquitto
def test_a_rotated_certificate_is_used_from_the_next_connection_on(
    secured: Secured, tmp_path: Path, heard: Recorder, start: Start
) -> None:
    bad = CertificateAuthority(tmp_path / "other", "other CA").device("pi-1")
    files = tmp_path / "now.crt", tmp_path / "now.key"
    for file, source in zip(files, (bad.cert_file, bad.key_file), strict=True):
        file.write_bytes(source.read_bytes())
    start(replace(secured.settings, cert_file=files[0], key_file=files[1]))
    heard.wait(Disconnected)
    good = secured.authority.device("pi-1")
    for file, source in zip(files, (good.cert_file, good.key_file), strict=True):
        file.write_bytes(source.read_bytes())
    heard.wait(Connected)


# ---- a peer that is not there, or not well


@pytest.mark.mosquitto
def test_a_broker_that_freezes_is_found_by_keepalive_and_met_again(
    tmp_path: Path, heard: Recorder, start: Start
) -> None:
    with Mosquitto.plain(tmp_path) as server:
        start(BrokerSettings("127.0.0.1", server.port, "pi-1", keepalive_seconds=2, connect_timeout_seconds=1))
        heard.wait(Connected)
        server.signal(signal.SIGSTOP)
        assert "keepalive" in heard.wait(Disconnected, seconds=4).reason
        server.signal(signal.SIGCONT)
        assert heard.wait(Connected).session_present


@pytest.mark.mosquitto
def test_an_idle_connection_is_kept_alive(tmp_path: Path, heard: Recorder, start: Start) -> None:
    with Mosquitto.plain(tmp_path, "connection_messages true") as server:
        broker = start(BrokerSettings("127.0.0.1", server.port, "pi-1", keepalive_seconds=1))
        heard.wait(Connected)
        with pytest.raises(AssertionError, match="no Disconnected"):
            heard.wait(Disconnected, seconds=3)
        assert broker.publish(Publication("a", b"", 1))
        heard.wait(PublicationAcknowledged)


def test_nobody_listening_is_told_with_the_address(heard: Recorder, start: Start) -> None:
    port = free_port()
    broker = start(BrokerSettings("127.0.0.1", port, "pi-1"))
    lost = heard.wait(Disconnected)
    assert not lost.refused
    assert f"127.0.0.1:{port}" in lost.reason
    assert not broker.publish(Publication("a", b"", 1))


def test_a_name_without_an_address_is_told_and_tried_again(heard: Recorder, start: Start) -> None:
    start(BrokerSettings("no..such..name", 1883, "pi-1"))
    for _ in range(2):
        assert not heard.wait(Disconnected).refused


class Script:
    """A server that does to each connection what the test says, and then waits until the client has gone."""

    def __init__(self, *answers: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answers = answers
        self.received = bytearray()
        self.reads = True
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._answers:
                connection.recv(65536)
            for answer in self._answers:
                connection.sendall(answer)
            if not self.reads:
                self._ended.wait()
            while data := connection.recv(65536):
                self.received += data
        except OSError:
            return

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def script(request: pytest.FixtureRequest) -> Iterator[Script]:
    made = Script(*request.param)
    yield made
    made.close()


@pytest.mark.parametrize("script", [()], indirect=True)
def test_a_server_that_never_answers_is_given_up(script: Script, heard: Recorder, start: Start) -> None:
    start(BrokerSettings("127.0.0.1", script.port, "pi-1", connect_timeout_seconds=0.2))
    assert "in time" in heard.wait(Disconnected).reason


@pytest.mark.parametrize("script", [()], indirect=True)
def test_a_server_that_never_ends_the_tls_handshake_is_given_up(
    script: Script, tmp_path: Path, heard: Recorder, start: Start
) -> None:
    ca_file = CertificateAuthority(tmp_path).ca_file
    start(BrokerSettings("127.0.0.1", script.port, "pi-1", ca_file, connect_timeout_seconds=0.2))
    assert "TLS" in heard.wait(Disconnected).reason


@pytest.mark.parametrize("script", [()], indirect=True)
def test_stop_does_not_wait_for_a_connection_being_made(
    script: Script, tmp_path: Path, heard: Recorder, start: Start
) -> None:
    broker = start(BrokerSettings("127.0.0.1", script.port, "pi-1", CertificateAuthority(tmp_path).ca_file))
    broker.stop()
    assert heard.events == []
    assert not [thread for thread in threading.enumerate() if thread.name == "mqtt"]


GARBAGE = {
    "not MQTT": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    "unknown packet": (CONNACK, b"\xf7\x02ab"),
    "endless length": (CONNACK, b"\x30\xff\xff\xff\xff\xff"),
    "publish cut short": (CONNACK, b"\x32\x02\x00\x09"),
    "bad property": (CONNACK, b"\x32\x08\x00\x01a\x00\x01\x02\xee\x00"),
    "topic is no UTF-8": (CONNACK, b"\x30\x05\x00\x01\xff\x00x"),
    "connack cut short": (b"\x20\x01\x00",),
    "suback without a body": (CONNACK, b"\x90\x00"),
    "larger than announced": (CONNACK, b"\x30\xff\xff\xff\x7f"),
    "far more than receive maximum": (
        CONNACK,
        b"".join(b"\x32\x07\x00\x01a" + number.to_bytes(2, "big") + b"\x00x" for number in range(1, 2_010)),
    ),
}


@pytest.mark.parametrize("script", GARBAGE.values(), ids=GARBAGE.keys(), indirect=True)
def test_a_broker_that_breaks_the_protocol_is_left_and_tried_again(
    script: Script, heard: Recorder, start: Start
) -> None:
    start(BrokerSettings("127.0.0.1", script.port, "pi-1", connect_timeout_seconds=0.5))
    for _ in range(2):
        assert heard.wait(Disconnected).reason


@pytest.mark.parametrize("script", [(b"\x20\x03\x00\x87\x00",)], indirect=True)
def test_a_refusal_in_connack_is_told_with_its_reason(script: Script, heard: Recorder, start: Start) -> None:
    start(BrokerSettings("127.0.0.1", script.port, "pi-1"))
    refusal = heard.wait(Disconnected)
    assert refusal.refused
    assert "Not authorized (0x87)" in refusal.reason


@pytest.mark.parametrize("script", [(CONNACK, ONE_PUBLISH)], indirect=True)
def test_a_puback_is_sent_once_and_only_when_told(script: Script, heard: Recorder, start: Start) -> None:
    broker = start(BrokerSettings("127.0.0.1", script.port, "pi-1"))
    message = heard.wait(MessageReceived)
    assert script.received == b""
    for _ in range(3):
        broker.acknowledge(message)
    broker.stop()
    assert script.received.count(b"\x40\x02\x00\x01") == 1


@pytest.mark.parametrize("script", [(b"\x20\x06\x00\x00\x03\x21\x00\x02",)], indirect=True)
def test_receive_maximum_of_the_broker_is_kept(script: Script, heard: Recorder, start: Start) -> None:
    broker = start(BrokerSettings("127.0.0.1", script.port, "pi-1"))
    assert heard.wait(Connected).receive_maximum == 2
    for token in range(5):
        assert broker.publish(Publication("topic", b"payload", token))
    broker.stop(timeout_seconds=0.3)
    assert script.received.count(b"payload") == 2


@pytest.mark.parametrize("script", [(b"\x20\x06\x00\x00\x03\x21\x00\x01",)], indirect=True)
def test_more_waiting_publications_than_we_keep_are_answered_with_a_refusal(
    script: Script, heard: Recorder, start: Start
) -> None:
    broker = start(BrokerSettings("127.0.0.1", script.port, "pi-1"))
    heard.wait(Connected)
    for token in range(MAXIMUM_WAITING + 10):
        assert broker.publish(Publication("t", b"", token))
    assert heard.wait(PublicationAcknowledged).reason_code == 0x97
    broker.stop(timeout_seconds=0.1)


@pytest.mark.parametrize("script", [(CONNACK,)], indirect=True)
def test_what_the_socket_does_not_take_is_not_piled_up(script: Script, heard: Recorder, start: Start) -> None:
    script.reads = False
    broker = start(BrokerSettings("127.0.0.1", script.port, "pi-1"))
    heard.wait(Connected)
    for token in range(1000):
        assert broker.publish(Publication("t", b"x" * 10_000, token, qos=0))
    for _ in range(2):  # a refusal comes from the thread itself: it has been through its loop
        broker.subscribe((("a/#/b", 0),))
        heard.wait(Subscribed)
    sent = [event for event in heard.events if isinstance(event, PublicationAcknowledged)]
    assert len(sent) + len(broker._waiting) >= 1000 - 2 * 32
    broker.stop(timeout_seconds=0.1)


@pytest.mark.mosquitto
def test_stop_waits_until_the_farewell_is_acknowledged(tmp_path: Path, heard: Recorder, start: Start) -> None:
    with Mosquitto.plain(tmp_path) as server:
        broker = start(BrokerSettings("127.0.0.1", server.port, "pi-1"))
        heard.wait(Connected)
        broker.stop(Publication("goodbye", b"", 77))
        assert heard.events[-1] == PublicationAcknowledged(77, 0x10)


# ---- callbacks


@pytest.mark.mosquitto
def test_a_callback_that_fails_is_logged_and_the_connection_goes_on(
    tmp_path: Path, heard: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: BrokerEvent) -> None:
        heard(event)
        raise RuntimeError("a bug in the caller")

    with Mosquitto.plain(tmp_path) as server, caplog.at_level(logging.ERROR):
        broker = PahoBroker(BrokerSettings("127.0.0.1", server.port, "pi-1"))
        broker.start(fail)
        heard.wait(Connected)
        assert broker.subscribe((("a", 1),))
        heard.wait(Subscribed)
        assert broker.publish(Publication("a", b"", 1))
        heard.wait(MessageReceived)
        broker.stop()
    assert "a bug in the caller" in caplog.text


def _spoken_by(settings: BrokerSettings) -> str | None:
    assert settings.cert_file is not None
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.load_cert_chain(settings.cert_file, settings.key_file)
    with (
        socket.create_connection((settings.host, settings.port)) as plain,
        context.wrap_socket(plain, server_hostname=settings.host) as secure,
    ):
        return secure.version()


def _forwarder_to(port: int) -> int:
    # Mosquitto listens on 127.0.0.1 alone; the certificate does not name 127.0.0.2.
    listener = socket.create_server(("127.0.0.2", 0))

    def run() -> None:
        with listener:
            near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        with near, far:
            far.sendall(near.recv(65536))
            near.sendall(far.recv(65536))
            near.recv(65536)

    threading.Thread(target=run, daemon=True).start()
    return int(listener.getsockname()[1])
