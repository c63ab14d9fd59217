import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from edge.agent.adapters.followed_log import LogLimits
from edge.agent.adapters.inotify import CREATED, MODIFIED, MOVED_HERE, Inotify, parse_events
from edge.agent.adapters.log_file import LOG_NAME, positions_from_json
from edge.agent.adapters.log_shipper import POSITIONS_NAME, SAVE_SECONDS, LogShipper
from edge.agent.telemetry.log_lines import Source
from edge.errors import StoreError
from tests.fakes.records import FakeRecords

WEB: Final = Source("task-1", "web", "shop", "prefix/web/task-1")
DB: Final = Source("task-2", "db")


def write(path: Path, *texts: str) -> None:
    with path.open("ab") as file:
        for text in texts:
            file.write(f"2026-11-24T02:53:29.{time.monotonic_ns() % 10**9:09d}+00:00 stdout F {text}\n".encode())


def texts(records: list[Any], container: str) -> list[str]:
    return [r["text"] for r in records if r["container"] == container and r.get("kind") != "dropped"]


def _has(count: int, found: list[Any]) -> bool:
    return len(found) == count


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


@pytest.fixture
def shipper(tmp_path: Path, records: FakeRecords) -> Iterator[LogShipper]:
    running = LogShipper(tmp_path / "logs", records, time.monotonic, LogLimits(100, 100_000))
    yield running
    running.close()


def test_lines_come_as_they_are_written_with_whose_they_are(shipper: LogShipper, records: FakeRecords) -> None:
    web, database = shipper.prepare(WEB), shipper.prepare(DB)
    write(web, "one")
    found = records.wait_for("logs", lambda found: texts(found, "web") == ["one"])
    assert {k: found[0][k] for k in ("task", "container", "group", "stream", "from", "text")} == {
        "task": "task-1",
        "container": "web",
        "group": "shop",
        "stream": "prefix/web/task-1",
        "from": "stdout",
        "text": "one",
    }
    write(database, "a", "b")
    write(web, "two")
    found = records.wait_for("logs", lambda found: len(found) == 4)
    assert (texts(found, "web"), texts(found, "db")) == (["one", "two"], ["a", "b"])


def test_a_replaced_file_is_followed(shipper: LogShipper, records: FakeRecords) -> None:
    web = shipper.prepare(WEB)
    write(web, "one")
    records.wait_for("logs", lambda found: len(found) == 1)
    new = web.with_name(f"{LOG_NAME}.tmp")
    write(web, "two")
    write(new, "three")
    new.replace(web)
    assert texts(records.wait_for("logs", lambda found: len(found) == 3), "web") == ["one", "two", "three"]


def test_a_stopped_agent_s_place_is_kept(tmp_path: Path, records: FakeRecords) -> None:
    first = LogShipper(tmp_path, records, time.monotonic, LogLimits())
    web = first.prepare(WEB)
    write(web, "one")
    first.close()
    assert texts(records.streams["logs"], "web") == ["one"]
    assert records.flushed == 1
    write(web, "while nobody looked")
    second = LogShipper(tmp_path, records, time.monotonic, LogLimits())
    second.start()
    records.wait_for("logs", lambda found: texts(found, "web") == ["one", "while nobody looked"])
    second.close()


def test_without_a_place_lines_come_twice_rather_than_never(tmp_path: Path, records: FakeRecords) -> None:
    first = LogShipper(tmp_path, records, time.monotonic, LogLimits())
    write(first.prepare(WEB), "one")
    first.close()
    (tmp_path / POSITIONS_NAME).write_bytes(b"\x00damaged")
    second = LogShipper(tmp_path, records, time.monotonic, LogLimits())
    second.start()
    assert texts(records.wait_for("logs", lambda found: len(found) == 2), "web") == ["one", "one"]
    second.close()


def test_what_is_over_the_limit_is_told_by_one_record_and_nobody_else_loses(
    shipper: LogShipper, records: FakeRecords
) -> None:
    web, database = shipper.prepare(WEB), shipper.prepare(DB)
    write(web, *(f"line {n}" for n in range(50_000)))
    write(database, "calm")
    records.wait_for("logs", lambda found: texts(found, "db") == ["calm"])
    shipper.close()
    found = records.streams["logs"]
    kept = texts(found, "web")
    dropped = [r for r in found if r.get("kind") == "dropped"]
    assert 1000 <= len(kept) < 2000
    numbers = [int(text.removeprefix("line ")) for text in kept]
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert sum(r["lines"] for r in dropped) + len(kept) == 50_000
    assert len(dropped) == 1
    assert dropped[0]["text"] == f"{dropped[0]['lines']} lines dropped"


def test_a_released_task_s_last_lines_come_and_its_files_go(
    tmp_path: Path, shipper: LogShipper, records: FakeRecords
) -> None:
    web, database = shipper.prepare(WEB), shipper.prepare(DB)
    write(web, "last words")
    with web.open("ab") as file:
        file.write(b"2026-11-24T02:53:29.1+00:00 stderr P no end\n")
    shipper.release("task-1")
    shipper.release("unknown")
    records.wait_for("logs", lambda found: texts(found, "web") == ["last words", "no end"])
    write(database, "still here")
    records.wait_for("logs", lambda found: texts(found, "db") == ["still here"])
    shipper.close()
    assert not (tmp_path / "logs" / "task-1").exists()
    assert list(json.loads((tmp_path / "logs" / POSITIONS_NAME).read_bytes())) == ["task-2/db"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, records: FakeRecords) -> None:
    (tmp_path / "file").write_text("")
    shipper = LogShipper(tmp_path / "file", records, time.monotonic, LogLimits())
    with pytest.raises(StoreError):
        shipper.prepare(WEB)
    shipper.close()


def test_events_of_the_kernel_are_told_by_folder_and_name(tmp_path: Path) -> None:
    inotify = Inotify()
    watch = inotify.watch(tmp_path, MODIFIED | CREATED | MOVED_HERE)
    assert inotify.read() == []
    (tmp_path / "a file").write_text("x")
    (tmp_path / "a file").rename(tmp_path / "b")
    events = [(event.watch, event.mask, event.name) for event in inotify.read()]
    assert events == [(watch, CREATED, "a file"), (watch, MODIFIED, "a file"), (watch, MOVED_HERE, "b")]
    inotify.unwatch(watch)
    inotify.read()
    (tmp_path / "c").write_text("x")
    assert inotify.read() == []
    with pytest.raises(FileNotFoundError, match="none"):
        inotify.watch(tmp_path / "none", MODIFIED)
    inotify.close()
    assert parse_events(b"short") == []


def test_how_far_a_log_was_read_is_kept_only_when_it_is_safe_elsewhere(tmp_path: Path, records: FakeRecords) -> None:
    now = [1000.0]
    shipper = LogShipper(tmp_path, records, lambda: now[0], LogLimits())
    web = shipper.prepare(WEB)
    saved = tmp_path / POSITIONS_NAME
    for count, text in enumerate(("one", "two", "three"), start=1):
        assert not saved.exists()
        write(web, text)
        records.wait_for("logs", partial(_has, count))
        now[0] += SAVE_SECONDS + 1
    deadline = time.monotonic() + 20
    while not saved.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (position,) = positions_from_json(saved.read_bytes()).values()
    # As it was one time before: the newest lines may still be in memory only.
    assert 0 < position.offset < web.stat().st_size
    shipper.close()
    (position,) = positions_from_json(saved.read_bytes()).values()
    assert position.offset == web.stat().st_size
