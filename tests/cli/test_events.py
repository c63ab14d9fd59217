import json
import threading

from edge.mqtt.broker import Publication
from tests.cli.bench import Bench, Ran


def event(number: int, status: str = "RUNNING") -> bytes:
    detail = {"taskId": f"{number:032x}", "lastStatus": status, "version": number}
    told = {"version": "0", "id": f"e{number}", "detail-type": "ECS Task State Change", "time": "2026-01-01T00:00:00Z"}
    return json.dumps(told | {"detail": detail}).encode()


def follow(bench: Bench, payloads: list[tuple[str, bytes]], *words: str) -> Ran:
    """Say things as soon as the command listens."""

    def say() -> None:
        while not bench.hub.publish(Publication("edge/v1/shop/pi-1/evt/agent", event(0), 0)):
            pass
        for topic, payload in payloads:
            bench.hub.publish(Publication(topic, payload, 0))

    speaker = threading.Thread(target=say)
    speaker.start()
    ran = bench.edge("events", *words)
    speaker.join()
    return ran


def test_each_event_is_shown_once_however_often_it_is_delivered(bench: Bench) -> None:
    topic = "edge/v1/shop/pi-1/evt/task"
    said = [(topic, event(1)), (topic, event(1)), (topic, event(2, "STOPPED"))]
    ran = follow(bench, said, "--output", "json", "--count", "3")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == ["e0", "e1", "e2"]


def test_the_same_id_of_two_devices_is_two_events(bench: Bench) -> None:
    said = [(f"edge/v1/shop/pi-{number}/evt/task", event(1)) for number in (1, 2)]
    ran = follow(bench, said, "--count", "3")
    assert [line.split()[1] for line in ran.out.splitlines()] == ["pi-1", "pi-1", "pi-2"]


def test_what_cannot_be_read_does_not_end_it(bench: Bench) -> None:
    topic = "edge/v1/shop/pi-1/evt/task"
    ran = follow(bench, [(topic, b"\xff"), (topic, event(1))], "--count", "2")
    assert ran.code == 0
    assert "unreadable message" in ran.err


def test_it_ends_when_the_time_is_over(bench: Bench) -> None:
    ran = bench.edge("events", "--timeout", "0.01")
    assert (ran.code, ran.out) == (0, "")


def test_an_unknown_device_is_told_instead_of_waiting_for_it(bench: Bench) -> None:
    assert bench.edge("events", "--device", "pi-9").code == 3
