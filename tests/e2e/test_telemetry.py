"""Telemetry through everything real: containers, agent, outbox, broker, collector, the operator's commands."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.podman import IMAGE
from tests.support.stack import Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SAYS = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"


@contextmanager
def collecting(stack: Stack, seconds: float) -> Iterator[None]:
    thread = threading.Thread(target=lambda: stack.edge("telemetry", "collect", "--for", str(seconds), expect=None))
    thread.start()
    yield
    thread.join()


def records(stack: Stack, stream: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stack.edge("telemetry", "export", "--stream", stream).splitlines()]


@pytest.fixture
def measured(stack: Stack) -> Stack:
    stack.kill_agent()
    toml = stack.device / "agent.toml"
    toml.write_text(toml.read_text() + '\n[telemetry]\ncontainers_seconds = 1\ndevice_seconds = 1\nlogs = "all"\n')
    stack.start_agent()
    stack.wait_connected()
    return stack


def test_what_containers_do_and_say_arrives_whole_also_what_was_while_the_broker_was_away(measured: Stack) -> None:
    stack = measured
    assert IMAGE
    stack.run_task(stack.register({"name": "app", "command": ["/bin/sh", "-c", SAYS]}))
    with collecting(stack, 6):
        pass
    metrics, logs = records(stack, "metrics"), records(stack, "logs")
    assert {"container", "device"} <= {str(one["record"].get("kind")) for one in metrics}, metrics[:3]  # type: ignore[attr-defined]
    assert any("line 3" in json.dumps(one["record"]) for one in logs), logs[:3]
    assert all(one["time"] for one in metrics)

    # In order: what a killed broker had acknowledged and not handed on is its loss, see test_drain_broker_gone.
    stack.broker.stop()
    threading.Event().wait(4)
    stack.broker.start()
    stack.wait_connected()
    with collecting(stack, 12):
        pass
    accounts = stack.json("telemetry", "check")["accounts"]
    assert {one["stream"] for one in accounts} >= {"metrics", "logs"}
    assert all(one["missing"] == [] for one in accounts)
    lines = [json.dumps(one["record"]) for one in records(stack, "logs")]
    numbers = sorted({int(text.partition("line ")[2].partition('"')[0]) for text in lines if "line " in text})
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) > 15, "it went on speaking"
