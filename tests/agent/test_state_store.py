import os
import resource
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge.agent.store import state
from edge.agent.store.state import Change, StateStore, StoredCommand
from edge.errors import StoreError, StoreFullError
from edge.model.documents import CommandStatus
from tests.support.tasks import TASK_ID, make_task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "state.db"


def test_what_was_committed_is_there_after_the_process_is_gone(path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from edge.agent.store.state import *\n"
        "StateStore(Path(sys.argv[1])).commit(Change(meta={'revision': b'7'}, events=[('t', b'p')]))\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False, cwd=Path.cwd())
    store = StateStore(path)
    assert store.meta("revision") == b"7"
    assert [(e.topic, e.payload) for e in store.events(0, 10)] == [("t", b"p")]
    store.close()


def test_a_change_is_written_whole_or_not_at_all(path: Path) -> None:
    store = StateStore(path)
    unwritable = Change(meta={"revision": b"8"}, events=[("topic", None)])  # type: ignore[list-item]
    with pytest.raises(StoreError):
        store.commit(unwritable)
    assert store.meta("revision") is None
    store.commit(Change(meta={"revision": b"9"}))
    assert store.meta("revision") == b"9"
    store.close()


def test_a_task_is_kept_changed_and_forgotten(path: Path) -> None:
    store = StateStore(path)
    task = make_task()
    store.commit(Change(tasks={TASK_ID: task}))
    store.commit(Change(tasks={TASK_ID: replace(task, version=2)}))
    assert store.tasks() == {TASK_ID: replace(task, version=2, definition=dict(task.definition))}
    store.commit(Change(tasks={TASK_ID: None}))
    assert store.tasks() == {}
    store.close()


def test_a_command_keeps_its_place_and_its_newest_answer(path: Path) -> None:
    store = StateStore(path)
    accepted = StoredCommand("command-1", "logs", {"taskId": TASK_ID}, CommandStatus.ACCEPTED, correlation=b"\x00\xff")
    store.commit(Change(commands={accepted.id: accepted}))
    assert store.unfinished_commands() == [accepted]
    done = replace(accepted, status=CommandStatus.SUCCEEDED, result={"lines": []})
    store.commit(Change(commands={done.id: done}))
    assert store.command("command-1") == done
    assert store.unfinished_commands() == []
    assert store.undelivered_commands() == [done]
    store.commit(Change(commands={done.id: replace(done, delivered=True)}))
    assert store.undelivered_commands() == []
    store.close()


def test_delivered_events_are_forgotten_and_the_order_stays(path: Path) -> None:
    store = StateStore(path)
    store.commit(Change(events=[("t", b"%d" % n) for n in range(5)]))
    first = store.events(0, 2)
    store.commit(Change(delivered=[event.seq for event in first]))
    assert [event.payload for event in store.events(0, 10)] == [b"2", b"3", b"4"]
    store.close()


def test_too_many_events_push_out_the_oldest_and_are_counted(path: Path) -> None:
    store = StateStore(path)
    excess = 7
    store.commit(Change(events=[("t", b"%d" % n) for n in range(state.MAXIMUM_EVENTS)]))
    store.commit(Change(events=[("t", b"new")] * excess))
    assert store.events_dropped() == excess
    assert store.events(0, 1)[0].payload == b"7"
    store.close()


def test_a_damaged_file_is_put_aside_and_a_new_one_begun(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, it only has the size of one" * 200)
    store = StateStore(path)
    assert store.tasks() == {}
    assert store.set_aside is not None
    assert store.set_aside.read_bytes().startswith(b"this is not")
    store.close()


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    StateStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="another version"):
        StateStore(path)
    assert [entry.name for entry in path.parent.iterdir() if "damaged" in entry.name] == []


def test_a_full_disk_is_told_as_such_and_nothing_is_lost(path: Path) -> None:
    store = StateStore(path)
    store.commit(Change(meta={"revision": b"1"}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    try:
        with pytest.raises(StoreFullError):
            store.commit(Change(meta={"revision": b"2", "large": os.urandom(300_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert store.meta("revision") == b"1"
    store.commit(Change(meta={"revision": b"3"}))
    assert store.meta("revision") == b"3"
    store.close()
