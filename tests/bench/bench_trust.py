"""What trust costs: judging a desired state of 100 KB, and an agent's way to its first authenticated connection.

Beside the agent stands the least there could be: a process that imports paho, connects with the same certificate and
publishes the same document. Both are started in turn, in one run.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.agent.engine.intake import Judge
from edge.fleet.folder import open_fleet
from edge.fleet.link import FleetLink, new_client_id
from edge.fleet.messages import StatusTold
from edge.model.device_policy import DevicePolicy
from edge.model.documents import DESIRED_STATE_TYPE, ConnectionState, DesiredState, DesiredTask
from edge.model.envelope import seal
from edge.model.trust import TrustedSet
from tests.model.signers import MemorySigner, sealed_bundle
from tests.support.podman import podman_service
from tests.support.stack import Stack, running_stack

NAME = "trust"
VERIFY_GOAL_MS = 3.0
START_GOAL = 1.5
DOCUMENT_BYTES = 100_000
VERIFICATIONS = 300
STARTS = 11
BARE = """
import sys, ssl
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
host, port, folder, topic, payload = sys.argv[1:]
client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="pi-1", protocol=mqtt.MQTTv5)
client.tls_set(folder + "/ca.crt", folder + "/device.crt", folder + "/device.key")
client.on_connect = lambda *_: client.publish(topic, payload, qos=1)
client.connect(host, int(port))
client.loop_forever()
"""


def run(report: Any) -> None:
    """Measure both."""
    _verification(report)
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        with podman_service(folder / "podman") as podman, running_stack(folder / "stack", podman) as stack:
            stack.kill_agent()
            _starts(report, stack)


def _verification(report: Any) -> None:
    signer = MemorySigner()
    judge = Judge(TrustedSet.from_bundle(sealed_bundle([signer])), "shop", "pi-1", DevicePolicy())
    envelope = seal(_document(), DESIRED_STATE_TYPE, [signer])
    verify, judging = [], []
    for _ in range(VERIFICATIONS):
        began = time.perf_counter()
        judge.trust.verify(envelope, DESIRED_STATE_TYPE)
        verify.append((time.perf_counter() - began) * 1000)
    for _ in range(20):
        began = time.perf_counter()
        judge.desired_state(envelope, in_force=0, tasks={})
        judging.append((time.perf_counter() - began) * 1000)
    value = statistics.median(verify)
    report.figure(
        name="verification of a desired state of 100 KB",
        value=round(value, 3),
        unit="ms",
        goal=f"<= {VERIFY_GOAL_MS}",
        holds=value <= VERIFY_GOAL_MS,
        runs=VERIFICATIONS,
    )
    report.figure(
        name="the same, with all of its task definitions judged",
        value=round(statistics.median(judging), 2),
        unit="ms",
        goal="",
        holds=True,
        runs=20,
    )


def _document() -> bytes:
    definitions: dict[str, Any] = {}
    while len(json.dumps(definitions)) < DOCUMENT_BYTES * 0.95:
        family = f"app-{len(definitions)}"
        environment = [{"name": f"NAME_{number}", "value": "value " * 5} for number in range(20)]
        container = {"name": "app", "image": "registry.example/app:1", "memory": 64, "environment": environment}
        definitions[f"{family}:1"] = {"family": family, "containerDefinitions": [container]}
    tasks = [DesiredTask(task_id=f"{number:032x}", task_definition=key) for number, key in enumerate(definitions)]
    state = DesiredState(
        cluster="shop", device="pi-1", revision=1, issued_at="", task_definitions=definitions, tasks=tasks
    )
    return json.dumps(state.to_wire()).encode()


def _starts(report: Any, stack: Stack) -> None:
    ours, bare = [], []
    host, _, port = _broker(stack).rpartition(":")
    payload = json.dumps(
        {"schemaVersion": 1, "state": "ONLINE", "session": "bare", "bootId": "bare", "agentVersion": "bare"}
    )
    command = (sys.executable, "-c", BARE, host, port, str(stack.device), "edge/v1/default/pi-1/status", payload)
    with open_fleet(stack.fleet) as fleet:
        settings = fleet.folder.broker_settings(fleet.settings.operator, new_client_id())
        with FleetLink(settings) as link:
            link.subscribe(("edge/v1/default/pi-1/status", 1))
            for turn in range(STARTS + 1):
                took = _until_online(link, stack.start_agent, stack.kill_agent)
                process: list[subprocess.Popen[bytes]] = []

                def start(process: list[subprocess.Popen[bytes]] = process) -> None:
                    process.append(subprocess.Popen(command))

                def end(process: list[subprocess.Popen[bytes]] = process) -> None:
                    process[0].kill()
                    process[0].wait()

                least = _until_online(link, start, end)
                if turn:
                    ours.append(took)
                    bare.append(least)
    ratio = statistics.median(ours) / statistics.median(bare)
    for name, values in (("agent", ours), ("bare paho client", bare)):
        report.figure(
            name=f"start to the first word over MQTT: {name}",
            value=round(statistics.median(values), 3),
            unit="s",
            goal="",
            holds=True,
            runs=STARTS,
        )
    report.figure(
        name="start to the first word over MQTT: agent / bare paho client",
        value=round(ratio, 3),
        unit="x",
        goal=f"<= {START_GOAL}",
        holds=ratio <= START_GOAL,
        runs=STARTS,
    )


def _broker(stack: Stack) -> str:
    with open_fleet(stack.fleet) as fleet:
        return str(fleet.settings.broker)


def _until_online(link: FleetLink, start: Callable[[], None], end: Callable[[], None]) -> float:
    began = time.perf_counter()
    start()
    for message in link.messages(30):
        if isinstance(message, StatusTold) and message.status.state is ConnectionState.ONLINE and not message.retained:
            took = time.perf_counter() - began
            end()
            # The will, and whatever else is still to be told of the one that was killed.
            for _ in link.messages(0.3):
                pass
            return took
    raise AssertionError("nobody came online within 30 s")
