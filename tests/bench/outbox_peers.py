"""The other ends of the outbox's benchmark, each a process of its own: `python -m tests.bench.outbox_peers KIND …`.

`count FLEET` counts the records that arrive as the operator's side gets them, and notes when a live one came;
`device AGENT_TOML` answers commands as soon as they come.
"""

import json
import queue
import sys
import time
from pathlib import Path

from edge.agent.app import broker_settings
from edge.agent.config import load_config
from edge.fleet.folder import open_fleet
from edge.model.topics import Topics
from edge.mqtt.broker import BrokerEvent, BrokerSettings, MessageReceived, Publication, Subscribed
from edge.mqtt.paho_broker import PahoBroker

LIVE = "readings-critical"
"""The stream whose records are timed."""


def connected(settings: BrokerSettings, *filters: str) -> "tuple[PahoBroker, queue.SimpleQueue[BrokerEvent]]":
    """Connect, subscribe, and return when the subscriptions stand."""
    events: queue.SimpleQueue[BrokerEvent] = queue.SimpleQueue()
    broker = PahoBroker(settings)
    broker.start(events.put)
    events.get(timeout=15)
    if filters:
        broker.subscribe(tuple((name, 1) for name in filters))
        while not isinstance(events.get(timeout=15), Subscribed):
            pass
    return broker, events


def count(fleet_folder: Path) -> None:
    """Count until a line comes on standard input; print what was counted as JSON."""
    with open_fleet(fleet_folder) as fleet:
        settings = fleet.folder.broker_settings(fleet.settings.operator, "counter")
    broker, events = connected(settings, "edge/v1/+/+/tel/+")
    say("ready")
    records = blocks = 0
    arrived: dict[str, float] = {}
    while True:
        try:
            event = events.get(timeout=0.5)
        except queue.Empty:
            if _asked_to_stop():
                break
            continue
        if isinstance(event, MessageReceived):
            now = time.monotonic()
            header = json.loads(event.payload[: event.payload.index(b"\n")])
            records += header["to"] - header["from"] + 1
            blocks += 1
            if header["stream"] == LIVE:
                arrived.update((str(number), now) for number in range(header["from"], header["to"] + 1))
            broker.acknowledge(event)
    say(json.dumps({"records": records, "blocks": blocks, "arrived": arrived}))
    broker.stop()


def device(config: Path) -> None:
    """Answer every command at once, until the end of standard input."""
    loaded = load_config(config)
    topics = Topics(loaded.cluster, loaded.device)
    broker, events = connected(broker_settings(loaded), topics.commands)
    say("ready")
    token = 0
    while True:
        event = events.get()
        if isinstance(event, MessageReceived):
            *_, operation, command = event.topic.split("/")
            token += 1
            broker.publish(Publication(topics.result(operation, command), event.payload, token))
            broker.acknowledge(event)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _asked_to_stop() -> bool:
    import select  # noqa: PLC0415

    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    {"count": count, "device": device}[sys.argv[1]](Path(sys.argv[2]))
