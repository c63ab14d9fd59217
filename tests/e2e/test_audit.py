"""The audit trail of a real device: who asked for what, into the fleet's store; and what whoever tampers leaves."""

import json
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.agent.store.outbox.layout import HEADER_SIZE, MAGIC, SECTOR, Header, pack, parse_header
from tests.support.stack import DEVICE, Stack

pytestmark = [pytest.mark.podman, pytest.mark.mosquitto]
SLEEPS = {"name": "app", "command": ["sleep", "1000"]}


@pytest.fixture
def collecting(stack: Stack) -> Iterator[Stack]:
    """A stack with somebody who collects."""
    command = [sys.executable, "-m", "edge", "telemetry", "collect", "--fleet", str(stack.fleet)]
    collector = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield stack
    collector.terminate()
    collector.wait()


def verified(stack: Stack, *options: str) -> dict[str, Any]:
    """What `edge audit verify` says of the device; findings with nothing in them while there is nothing."""
    printed = stack.edge("audit", "verify", "--output", "json", *options, expect=None)
    nothing: dict[str, Any] = {"findings": [{"what": "", "broken": False}]}
    return json.loads(printed)["devices"].get(DEVICE, nothing) if printed else nothing


def collected(stack: Stack) -> list[dict[str, Any]]:
    """The trail as it has come to the operator, once all of it has."""
    stack.wait("all of the trail", lambda: not verified(stack)["findings"])
    return [one["record"] for one in stack.json("audit", "ls")["records"]]


def blocks(stack: Stack) -> list[tuple[Path, int, Header]]:
    """The trail's blocks in the outbox, oldest first."""
    found = []
    for path in (stack.state_dir / "outbox" / "audit").iterdir():
        data = path.read_bytes() if path.is_file() else b""
        for offset in range(0, len(data), SECTOR):
            if data.startswith(MAGIC, offset):
                (segment,) = struct.unpack_from("<Q", data, offset + len(MAGIC))
                header = parse_header(data, offset, segment)
                found += [(path, offset, header)] if header else []
    return sorted(found, key=lambda one: one[2].before)


def told(records: list[dict[str, Any]], what: str) -> list[str]:
    return [one["outcome"] for one in records if one["what"] == what]


def test_everything_that_was_asked_is_in_the_trail_with_who_signed_it(collecting: Stack) -> None:
    stack = collecting
    task_id = stack.run_task(stack.register(SLEEPS))
    stack.edge("task", "stop", task_id)
    stack.edge("device", "pull-image", "localhost/edge-test/busybox:1", "--device", DEVICE, expect=None)
    stack.send_desired(b"nonsense")
    stack.edge("fleet", "publish")
    stack.edge("fleet", "key", "add", "second")
    config = str(stack.device / "agent.toml")
    definition = stack.folder / "local.json"
    definition.write_text(
        json.dumps({"family": "here", "containerDefinitions": [SLEEPS | {"image": "no", "memory": 32}]})
    )
    stack.edge("local", "run", str(definition), "--config", config, expect=None)
    records = collected(stack)
    key = json.loads(stack.edge("fleet", "key", "ls", "--output", "json"))["keys"]
    first = next(one["keyId"] for one in key if one["name"] == "first")
    accepted = [one for one in records if one["what"] in ("revision", "command") and one["outcome"] == "ACCEPTED"]
    assert accepted
    assert all(one["keys"] == [first] for one in accepted)
    assert {"ACCEPTED", "APPLIED", "REJECTED"} <= set(told(records, "revision"))
    assert told(records, "command")
    assert told(records, "trust") == ["FOLLOWED"]
    assert told(records, "local") == ["DONE"]
    assert records[0]["what"] == "agentStarted"
    assert [one["n"] for one in records] == list(range(1, len(records) + 1))


def test_a_killed_agent_and_a_reboot_go_on_with_the_trail(collecting: Stack) -> None:
    stack = collecting
    stack.run_task(stack.register(SLEEPS))
    for boot in ("boot-1", "boot-2"):
        stack.kill_agent()
        stack.start_agent(program=("-m", "tests.support.played_agent"), environment={"EDGE_TEST_BOOT_ID": boot})
        stack.wait_connected()
    records = collected(stack)
    assert [one["bootId"] for one in records if one["what"] == "agentStarted"][1:] == ["boot-1", "boot-2"]
    assert len({one["chain"] for one in records}) == 1


def test_what_is_changed_on_the_device_s_disk_before_it_is_delivered_is_found(collecting: Stack) -> None:
    stack = collecting
    stack.broker.kill()
    stack.kill_agent()
    before = len(blocks(stack))
    stack.start_agent()
    stack.wait("its record to be on the disk", lambda: len(blocks(stack)) > before)
    stack.kill_agent()
    path, offset, header = blocks(stack)[-1]
    data = bytearray(path.read_bytes())
    payload = bytes(data[offset + HEADER_SIZE : offset + header.size])
    records = zlib.decompress(payload).replace(b"agentStarted", b"agentStopped")
    changed = pack(header.block("audit", zlib.compress(records)), header.segment, header.before, header.follows)
    assert len(changed) <= SECTOR
    data[offset : offset + SECTOR] = changed.ljust(SECTOR, b"\0")
    path.write_bytes(data)
    stack.broker.start()
    stack.start_agent()
    stack.wait_connected()

    def found() -> str:
        return " ".join(one["what"] for one in verified(stack)["findings"] if one["broken"])

    assert "one was changed" in stack.wait("it to be found", found)
    with pytest.raises(AssertionError, match="not what the device wrote"):
        stack.edge("audit", "verify")


def test_what_is_changed_or_removed_in_the_fleet_s_store_is_found(collecting: Stack) -> None:
    stack = collecting
    task_id = stack.run_task(stack.register(SLEEPS))
    stack.edge("task", "stop", task_id)
    collected(stack)
    stack.edge("audit", "verify")
    database = sqlite3.connect(stack.fleet / "telemetry.db")
    rows = database.execute("SELECT id, payload FROM batches WHERE stream = 'audit' ORDER BY id").fetchall()
    identity, payload = next(row for row in rows if b"ACCEPTED" in zlib.decompress(row[1]))
    changed = zlib.compress(zlib.decompress(payload).replace(b"ACCEPTED", b"REJECTED"))
    database.execute("UPDATE batches SET payload = ? WHERE id = ?", (changed, identity))
    database.commit()
    stack.edge("audit", "verify", "--offline", expect=1)
    database.execute("DELETE FROM batches WHERE id = ?", (identity,))
    database.commit()
    stack.edge("audit", "verify", "--offline", expect=1)
    database.close()
