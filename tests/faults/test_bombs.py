"""Messages that are larger, deeper, more or denser than anything may be: what they cost in memory, and what is left.

The agent is a process of its own, and its broker one that keeps to no rule; what a process took at the most is what the
kernel says (VmHWM, begun anew by /proc/PID/clear_refs).
"""

import json
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge.fleet.clock import now
from edge.fleet.folder import Address, Fleet, FleetSettings, init_fleet
from edge.fleet.identities import add_device
from edge.model.documents import DESIRED_STATE_TYPE, MAXIMUM_DOCUMENT_BYTES
from edge.model.envelope import seal
from edge.model.topics import Topics
from edge.model.trust import Role
from tests.support.hostile_broker import LARGEST, HostileBroker

PI = Topics("shop", "pi-1")
MIB = 1024
"""In the kernel's unit, KiB."""


def _bomb(mib: int) -> bytes:
    deflate, zeros = zlib.compressobj(9), bytes(1024 * 1024)
    return b"".join(deflate.compress(zeros) for _ in range(mib)) + deflate.flush()


BOMB = _bomb(256)
"""1000 to 1."""


@dataclass
class Victim:
    """An agent, the broker it trusts to be one, and its fleet."""

    process: subprocess.Popen[bytes]
    broker: HostileBroker
    fleet: Fleet

    def growth(self, act: Callable[[], object]) -> int:
        """How many KiB the process took at the most while this was done, above what it had before."""
        status = Path(f"/proc/{self.process.pid}/status")
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        before = _kib(status.read_text(), "VmRSS")
        act()
        return _kib(status.read_text(), "VmHWM") - before

    def refuse(self, payload: bytes, reason: str = "") -> str:
        """Send a desired state and return the agent's answer to it, the one that gives `reason`.

        With each connection an agent says once more what it answered last.
        """
        already = self.broker.count(PI.desired_ack)
        self.broker.publish(PI.desired, payload)
        while reason not in (answer := self.broker.wait_published(PI.desired_ack, already).decode()):
            already += 1
        return answer

    def sealed(self, **changes: object) -> bytes:
        document = {"schemaVersion": 1, "cluster": "shop", "device": "pi-1", "revision": 1, "issuedAt": "", **changes}
        signers = self.fleet.signers(Role.DESIRED_STATE)
        return seal(json.dumps(document, separators=(",", ":")).encode(), DESIRED_STATE_TYPE, signers)


def _kib(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    folder = tmp_path_factory.mktemp("bombs")
    with HostileBroker() as broker:
        address = Address("127.0.0.1", broker.port)
        with init_fleet(folder / "fleet", FleetSettings("shop", address, address), now()) as fleet:
            add_device(fleet, "pi-1", folder / "device", now())
            toml = folder / "device" / "agent.toml"
            lines = [line for line in toml.read_text().splitlines() if not re.match("(ca|cert|key)_file", line)]
            toml.write_text("\n".join(lines).replace("/run/podman/podman.sock", str(folder / "none.sock")))
            command = (sys.executable, "-m", "edge", "agent", "run", "--config", str(toml))
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                try:
                    broker.wait_subscribed()
                    made = Victim(process, broker, fleet)
                    # Libraries that are loaded for the first document, and the largest one that is in order.
                    made.refuse(made.sealed(device="pi-2", note="x" * 180_000))
                    made.refuse(b"[" + b"1," * 100_000 + b"1]")
                    yield made
                finally:
                    process.terminate()


def test_a_publication_of_256_mib_is_refused_before_it_is_taken(victim: Victim) -> None:
    taken: list[int] = []

    def bomb() -> None:
        for _ in range(2):
            connections = victim.broker.connections
            taken.append(victim.broker.announce(PI.desired, LARGEST))
            victim.broker.wait_subscribed(connections + 1)

    assert victim.growth(bomb) <= 4 * MIB
    # What the kernel's buffers swallow; the agent hung up at the announcement.
    assert max(taken) < 16 * 1024 * 1024
    assert victim.refuse(victim.sealed(device="pi-2"), "is for shop/pi-2")


def test_a_million_tasks_are_refused_by_their_size(victim: Victim) -> None:
    one = len(f'{{"taskId":"{0:032x}","taskDefinition":"x:1"}},')

    def bomb() -> None:
        connections = victim.broker.connections
        victim.broker.announce(PI.desired, 1_000_000 * one)
        victim.broker.wait_subscribed(connections + 1)

    assert victim.growth(bomb) <= 4 * MIB
    assert victim.refuse(victim.sealed(device="pi-2"), "is for shop/pi-2")


def test_as_many_tasks_as_fit_are_refused_by_their_number(victim: Victim) -> None:
    tasks = [{"taskId": f"{number:032x}", "taskDefinition": "x:1"} for number in range(2_500)]
    signed = victim.sealed(tasks=tasks)
    assert len(signed) > 0.8 * MAXIMUM_DOCUMENT_BYTES
    told: list[str] = []
    grown = victim.growth(lambda: told.append(victim.refuse(signed)))
    assert "256" in told[0]
    assert grown <= 8 * MIB


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [10_000, 40_000])
def test_deep_nesting_is_refused(victim: Victim, opening: bytes, depth: int) -> None:
    told: list[str] = []
    grown = victim.growth(lambda: told.append(victim.refuse(opening * depth)))
    assert "malformed" in told[0]
    assert grown <= 4 * MIB


def test_what_inflates_a_thousand_fold_is_not_inflated(victim: Victim) -> None:
    assert len(BOMB) * 1000 < 256 * 1024 * 1024 * 1.01
    bomb = BOMB[: MAXIMUM_DOCUMENT_BYTES - 2048]

    def send() -> None:
        for topic in (
            PI.trust,
            PI.head,
            PI.certificate,
            PI.command("logs", "0123456789abcdef"),
            PI.stream_in("x" * 16),
        ):
            victim.broker.publish(topic, bomb)
        assert "malformed" in victim.refuse(bomb)

    assert victim.growth(send) <= 4 * MIB
    assert victim.process.poll() is None


COLLECTOR = """
import json, re, sys, zlib
from edge.errors import InvalidInputError
from edge.model.telemetry import parse_batch
head = {"schemaVersion": 1, "stream": "metrics", "epoch": 1, "from": 1, "to": int(sys.argv[1]), "bootId": "0" * 32}
head |= {"clock": {}, "codec": "zlib"}
message = json.dumps(head).encode() + b"\\n" + sys.stdin.buffer.read()
def kib(name):
    return int(re.search(name + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1])
try:
    parse_batch(json.dumps(head).encode() + b"\\n" + zlib.compress(b"no record"))
except InvalidInputError:
    pass
open("/proc/self/clear_refs", "w").write("5")
before = kib("VmRSS")
try:
    parse_batch(message)
except InvalidInputError as error:
    print(kib("VmHWM") - before, error)
"""


@pytest.mark.parametrize(
    ("name", "payload", "records"),
    [
        ("a thousand to one", BOMB[: 250 * 1024], 500),
        ("nothing but ends of lines", zlib.compress(b"\n" * 1_000_000), 500),
        ("a record of ten thousand levels", zlib.compress(b'{"a":' * 10_000), 1),
        ("a record of a hundred thousand levels", zlib.compress(b"[" * 1_000_000), 1),
    ],
)
def test_a_block_of_telemetry_is_inflated_to_a_bound(name: str, payload: bytes, records: int) -> None:
    command = (sys.executable, "-c", COLLECTOR, str(records))
    ran = subprocess.run(command, input=payload, stdout=subprocess.PIPE, check=True, timeout=60)
    grown, _, refusal = ran.stdout.decode().partition(" ")
    assert refusal.strip(), name
    assert int(grown) <= 4 * MIB, (name, refusal)
