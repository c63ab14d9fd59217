"""How fast the outbox empties over TLS into a real Mosquitto, what is new while it does, and how fast a command is."""

import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.agent.adapters.clock import SystemClock
from edge.agent.app import broker_settings
from edge.agent.config import load_config
from edge.agent.store.outbox import Outbox
from edge.agent.telemetry.boot_clocks import BootClocks
from edge.agent.telemetry.drain import BACKLOG_BYTES_PER_SECOND, Drain, DrainSettings
from edge.fleet.folder import open_fleet
from edge.model.records import STREAMS
from edge.model.topics import Topics
from edge.mqtt.broker import BrokerEvent, MessageReceived, Publication
from edge.mqtt.paho_broker import PahoBroker
from tests.bench.outbox_peers import LIVE, connected
from tests.support.metrics_records import RECORD_BYTES, take
from tests.support.mosquitto import Mosquitto
from tests.support.stack import DEVICE, Stack

BOOT_ID = "0123456789abcdef" * 2
RECORDS = 600_000
RUNS = 3
UNBATCHED = 20_000
LIVE_RECORDS = 400
LIVE_PAUSE_SECONDS = 0.01
TRIPS = 3000
WARM_UP = 200
AS_FAST_AS_IT_GOES = 1 << 40
TOPICS = Topics("default", DEVICE)
_NO_DELAY = "set_tcp_nodelay true\n"


def run(report: Any) -> None:
    """Measure, and report."""
    pool = take(20_000)
    with tempfile.TemporaryDirectory(prefix="edge-drain-") as name:
        # Fleet, certificates, broker and the device's folder; no Podman is asked for anything.
        stack = Stack(Path(name), SimpleNamespace(socket=Path(name) / "none"))  # type: ignore[arg-type]
        with stack.broker:
            _drain(report, stack, pool)
            _live(report, stack, pool)
        _round_trips(report, stack)


# --- how fast it empties


def _drain(report: Any, stack: Stack, pool: list[bytes]) -> None:
    ours, plain, wire = list[float](), list[float](), list[float]()
    for number in range(RUNS):
        rate, each = _drained(stack, pool, stack.folder / f"drain-{number}")
        ours.append(rate)
        wire.append(each)
        plain.append(_unbatched(stack, pool))
    rate, ratio = statistics.median(ours), statistics.median(ours) / statistics.median(plain)
    size = statistics.median(wire)
    for name, value, unit, goal, holds in (
        ("drain over TLS to Mosquitto", round(rate), "1/s", ">= 150000", rate >= 150_000),
        ("drain / one message a record with paho", round(ratio, 1), "x", ">= 10", ratio >= 10),
        (f"bytes on the wire per {RECORD_BYTES}-byte record, TLS counted", round(size, 1), "B", "<= 45", size <= 45),
    ):
        report.figure(name=name, value=value, unit=unit, goal=goal, holds=holds, runs=RUNS)


def _drained(stack: Stack, pool: list[bytes], folder: Path) -> tuple[float, float]:
    """Return records a second from the first block to the last PUBACK, and bytes the socket sent for each record."""
    _fill(folder, pool)
    with _counter(stack) as counter:
        outbox = _outbox(folder)
        with _draining(stack, outbox, AS_FAST_AS_IT_GOES) as began:
            _wait_until_empty(outbox)
            took = time.perf_counter() - began
            sent = _bytes_sent(stack.broker.ports[0])
        outbox.close()
        told = counter()
    if told["records"] < RECORDS:
        raise AssertionError(f"{told['records']} of {RECORDS} records arrived")
    return RECORDS / took, sent / RECORDS


def _fill(folder: Path, pool: list[bytes]) -> None:
    outbox = _outbox(folder)
    for at in range(0, RECORDS, 500):
        begin = at % len(pool)
        outbox.put("metrics", pool[begin : begin + 500])
    outbox.close()


def _outbox(folder: Path) -> Outbox:
    return Outbox(folder, STREAMS, BOOT_ID, SystemClock().monotonic, free_floor_bytes=0)


@contextmanager
def _draining(stack: Stack, outbox: Outbox, backlog_rate: int) -> Iterator[float]:
    """Connect as the device and drain; yields when it began, on `time.perf_counter`."""
    broker = PahoBroker(broker_settings(load_config(stack.device / "agent.toml")))
    clocks = BootClocks(stack.folder / "boots.json", BOOT_ID, SystemClock())
    drain = Drain(outbox, broker, TOPICS, clocks, settings=DrainSettings(backlog_rate))
    outbox.changed = drain.wake
    drain.start()
    began = time.perf_counter()

    def hear(event: BrokerEvent) -> None:
        drain.hear(event)

    broker.start(hear)
    try:
        yield began
    finally:
        drain.close()
        broker.stop()


def _wait_until_empty(outbox: Outbox) -> None:
    deadline = time.monotonic() + 120
    while any(one.records for one in outbox.facts()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it does not empty: {outbox.facts()}")
        time.sleep(0.01)


def _bytes_sent(port: int) -> int:
    """What the one connection to a port has sent, as the kernel counts it: TLS and what was sent twice included."""
    shown = subprocess.run(
        ("ss", "-tinH", "state", "established", f"dport = :{port}"), check=True, capture_output=True, text=True
    ).stdout
    return sum(int(word.partition(":")[2]) for word in shown.split() if word.startswith("bytes_sent:"))


def _unbatched(stack: Stack, pool: list[bytes]) -> float:
    """One message for each record, as many under way as the broker lets, acknowledged one by one."""
    settings = broker_settings(load_config(stack.device / "agent.toml"))
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=settings.client_id, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(1000)
    client.tls_set(str(settings.ca_file), str(settings.cert_file), str(settings.key_file), tls_version=ssl.PROTOCOL_TLS)
    done, ready = threading.Semaphore(0), threading.Event()
    client.on_connect = lambda *_: ready.set()
    client.on_publish = lambda *_: done.release()
    client.connect(settings.host, settings.port)
    client.loop_start()
    ready.wait(15)
    began = time.perf_counter()
    for number in range(UNBATCHED):
        client.publish(TOPICS.telemetry("metrics"), pool[number % len(pool)], qos=1)
    for _ in range(UNBATCHED):
        done.acquire()
    took = time.perf_counter() - began
    client.disconnect()
    client.loop_stop()
    return UNBATCHED / took


@contextmanager
def _peer(kind: str, path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = (sys.executable, "-m", "tests.bench.outbox_peers", kind, str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        try:
            if peer.stdout is None or peer.stdout.readline() != "ready\n":
                raise AssertionError(f"{kind} did not begin")
            yield peer
        finally:
            peer.kill()


@contextmanager
def _counter(stack: Stack) -> Iterator[Any]:
    """Count on the operator's side; what is yielded ends it, and returns what it counted."""
    with _peer("count", stack.fleet) as peer:

        def result() -> Any:
            return json.loads(peer.communicate("end\n", timeout=60)[0])

        yield result


# --- what is new while it empties


def _live(report: Any, stack: Stack, pool: list[bytes]) -> None:
    idle, busy = list[float](), list[float]()
    for number in range(RUNS):
        idle.append(_live_p99(stack, stack.folder / f"idle-{number}", None))
        busy.append(_live_p99(stack, stack.folder / f"busy-{number}", pool))
    ratio = statistics.median(busy) / statistics.median(idle)
    report.figure(
        name="a critical record to the consumer, p99, nothing else to send",
        value=round(statistics.median(idle) * 1000, 2), unit="ms", runs=RUNS,
    )  # fmt: skip
    report.figure(
        name=f"the same while a backlog is drained at {BACKLOG_BYTES_PER_SECOND >> 20} MiB/s / idle",
        value=round(ratio, 2), unit="x", goal="<= 2", holds=ratio <= 2, runs=RUNS,
    )  # fmt: skip


def _live_p99(stack: Stack, folder: Path, backlog: list[bytes] | None) -> float:
    if backlog is not None:
        _fill(folder, backlog)
    record = b'{"t":1,"value":21.5}'
    put: list[float] = []
    with _counter(stack) as counter:
        outbox = _outbox(folder)
        with _draining(stack, outbox, BACKLOG_BYTES_PER_SECOND):
            time.sleep(1.0)
            for _ in range(LIVE_RECORDS):
                put.append(time.monotonic())
                outbox.put(LIVE, [record])
                time.sleep(LIVE_PAUSE_SECONDS)
            if backlog is not None and not any(one.records for one in outbox.facts() if one.stream == "metrics"):
                raise AssertionError("the backlog was gone before the last record was timed")
            time.sleep(1.0)
        outbox.close()
        arrived = counter()["arrived"]
    took: list[float] = sorted(arrived[str(number)] - at for number, at in enumerate(put, 1))
    return took[int(len(took) * 0.99)]


# --- a command


def _round_trips(report: Any, stack: Stack) -> None:
    """On a Mosquitto that was told nothing of TCP_NODELAY, as a default one is."""
    text = stack.broker.config_file.read_text()
    if _NO_DELAY not in text:
        raise AssertionError("the fleet's configuration does not set what is to be left out here")
    plain = Mosquitto(stack.folder / "broker-default", text.replace(_NO_DELAY, ""), stack.broker.ports)
    with plain, _peer("device", stack.device / "agent.toml"), open_fleet(stack.fleet) as fleet:
        settings = fleet.folder.broker_settings(fleet.settings.operator, "asker")
        broker, events = connected(settings, f"edge/v1/default/{DEVICE}/res/+/+")
        took: list[float] = []
        for number in range(WARM_UP + TRIPS):
            command = f"{number:032x}"
            began = time.perf_counter()
            broker.publish(Publication(TOPICS.command("describe", command), b"{}", number + 1))
            while not (isinstance(event := events.get(timeout=10), MessageReceived) and command in event.topic):
                pass
            took.append(time.perf_counter() - began)
            broker.acknowledge(event)
        broker.stop()
    measured = sorted(took[WARM_UP:])
    for name, share, most in (("p50", 0.5, 0.8), ("p99", 0.99, 2.0)):
        value = measured[int(len(measured) * share)] * 1000
        report.figure(
            name=f"command and answer, QoS 1, TLS, default Mosquitto, {name}",
            value=round(value, 2), unit="ms", goal=f"<= {most}", holds=value <= most, runs=TRIPS,
        )  # fmt: skip
