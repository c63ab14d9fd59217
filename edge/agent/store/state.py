"""What an agent must not forget: one SQLite file, written by the engine's thread alone.

WAL with `synchronous=FULL`: a commit that returned survives a power cut. Everything that changes together is one
`Change` and one transaction, so that no reader, and no restart, sees half of it.
"""

import errno
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.errors import StoreError, StoreFullError
from edge.files import make_folder
from edge.model.documents import CommandStatus
from edge.model.task import Task, task_from_json, task_to_json

SCHEMA_VERSION: Final = 1
MAXIMUM_EVENTS: Final = 10_000
"""Events kept for the broker while it is away; beyond it the oldest goes, and is counted."""
MAXIMUM_COMMANDS: Final = 1_000
"""Commands remembered for their idempotency keys; a command lives a day at most."""

_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE task (task_id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL);
CREATE TABLE command (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, op TEXT NOT NULL, parameters TEXT NOT NULL,
    status TEXT NOT NULL, result TEXT NOT NULL, reason TEXT NOT NULL, delivered INTEGER NOT NULL,
    response_topic TEXT NOT NULL, correlation BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class StoredCommand:
    """A command by its idempotency key, and what came of it.

    Attributes:
        delivered: The broker acknowledged the answer that stands here.
    """

    id: str
    op: str
    parameters: Mapping[str, Any]
    status: CommandStatus
    result: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    delivered: bool = False
    response_topic: str = ""
    correlation: bytes = b""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event that waits for the broker's acknowledgement; `seq` orders it."""

    seq: int
    topic: str
    payload: bytes


@dataclass(slots=True)
class Change:
    """Everything that changes together.

    Attributes:
        tasks: By id; None forgets the task.
        events: `(topic, payload)` to be handed to the broker.
        meta: By key; None forgets it.
        commands: Written whole, by id.
        delivered: `seq` of events the broker has; they are forgotten.
    """

    tasks: dict[str, Task | None] = field(default_factory=dict)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    meta: dict[str, bytes | None] = field(default_factory=dict)
    commands: dict[str, StoredCommand] = field(default_factory=dict)
    delivered: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Say whether there is anything to write."""
        return bool(self.tasks or self.events or self.meta or self.commands or self.delivered)


class StateStore:
    """The agent's state file.

    Raises (all methods):
        StoreFullError: The disk is full or read-only; nothing was changed.
        StoreError: The file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, making it where there is none; one that is damaged is put aside and a new one begun."""
        self.path = path
        self.set_aside: Path | None = None
        try:
            self._connection = _open(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise _translated(error, path) from error
            self.set_aside = _put_aside(path)
            with _translating(path):
                self._connection = _open(path)

    def tasks(self) -> dict[str, Task]:
        """Return all tasks by id."""
        with _translating(self.path):
            rows = self._connection.execute("SELECT record FROM task ORDER BY task_id").fetchall()
        tasks = (task_from_json(json.loads(record)) for (record,) in rows)
        return {task.task_id: task for task in tasks}

    def meta(self, key: str) -> bytes | None:
        """Return what was stored under the key."""
        with _translating(self.path):
            row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return bytes(row[0]) if row else None

    def meta_of(self, prefix: str) -> dict[str, bytes]:
        """Return what was stored under keys that begin with `prefix`, by the rest of the key."""
        query = "SELECT key, value FROM meta WHERE substr(key, 1, ?) = ? ORDER BY key"
        with _translating(self.path):
            rows = self._connection.execute(query, (len(prefix), prefix)).fetchall()
        return {key.removeprefix(prefix): bytes(value) for key, value in rows}

    def commit(self, change: Change) -> None:
        """Write a change; when this returns it survives a power cut, when it raises nothing of it happened."""
        with self._transaction() as run:
            for task_id, task in change.tasks.items():
                if task is None:
                    run.execute("DELETE FROM task WHERE task_id = ?", (task_id,))
                else:
                    record = json.dumps(task_to_json(task), separators=(",", ":"))
                    run.execute("INSERT OR REPLACE INTO task VALUES (?, ?)", (task_id, record))
            run.executemany(
                "DELETE FROM meta WHERE key = ?", [(k,) for k, value in change.meta.items() if value is None]
            )
            kept = [(key, value) for key, value in change.meta.items() if value is not None]
            run.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", kept)
            run.executemany("INSERT INTO event (topic, payload) VALUES (?, ?)", change.events)
            run.executemany("DELETE FROM event WHERE seq = ?", [(seq,) for seq in change.delivered])
            if change.events:
                _bound_events(run)
            for command in change.commands.values():
                _write_command(run, command)

    def command(self, command_id: str) -> StoredCommand | None:
        """Return the command of that idempotency key."""
        found = self._commands("WHERE id = ?", (command_id,))
        return found[0] if found else None

    def undelivered_commands(self) -> list[StoredCommand]:
        """Return the commands whose newest answer the broker has not acknowledged, oldest first."""
        return self._commands("WHERE delivered = 0 ORDER BY seq")

    def unfinished_commands(self) -> list[StoredCommand]:
        """Return the commands that were accepted and not yet finished, oldest first."""
        return self._commands("WHERE status IN ('ACCEPTED', 'RUNNING') ORDER BY seq")

    def events(self, after: int, limit: int) -> list[StoredEvent]:
        """Return the oldest events with a greater `seq`."""
        query = "SELECT seq, topic, payload FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
        with _translating(self.path):
            rows = self._connection.execute(query, (after, limit)).fetchall()
        return [StoredEvent(seq, topic, bytes(payload)) for seq, topic, payload in rows]

    def events_dropped(self) -> int:
        """Return how many events went unsent because too many were waiting."""
        return int(self.meta("events_dropped") or 0)

    def close(self) -> None:
        """Close the file; what was committed is in it."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translating(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _commands(self, where: str, values: tuple[str, ...] = ()) -> list[StoredCommand]:
        query = (
            "SELECT id, op, parameters, status, result, reason, delivered, response_topic, correlation FROM command "
        )
        with _translating(self.path):
            rows = self._connection.execute(query + where, values).fetchall()
        return [
            StoredCommand(
                row[0], row[1], json.loads(row[2]), CommandStatus(row[3]), json.loads(row[4]), row[5], bool(row[6]),
                row[7], bytes(row[8]),
            )
            for row in rows
        ]  # fmt: skip


def _open(path: Path) -> sqlite3.Connection:
    make_folder(path.parent)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-256")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        else:
            _check_version(version, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_version(version: int, path: Path) -> None:
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by another version of edge (schema {version}, this one knows {SCHEMA_VERSION})",
            hint="Install the version of edge that wrote it, or a newer one.",
        )


def _bound_events(run: sqlite3.Connection) -> None:
    (count,) = run.execute("SELECT count(*) FROM event").fetchone()
    excess = count - MAXIMUM_EVENTS
    if excess > 0:
        run.execute("DELETE FROM event WHERE seq IN (SELECT seq FROM event ORDER BY seq LIMIT ?)", (excess,))
        row = run.execute("SELECT value FROM meta WHERE key = 'events_dropped'").fetchone()
        dropped = int(row[0] if row else 0) + excess
        run.execute("INSERT OR REPLACE INTO meta VALUES ('events_dropped', ?)", (str(dropped).encode(),))


def _write_command(run: sqlite3.Connection, command: StoredCommand) -> None:
    run.execute(
        "INSERT INTO command (id, op, parameters, status, result, reason, delivered, response_topic, correlation) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET status = excluded.status, "
        "result = excluded.result, reason = excluded.reason, delivered = excluded.delivered",
        (
            command.id,
            command.op,
            json.dumps(dict(command.parameters)),
            command.status.value,
            json.dumps(dict(command.result)),
            command.reason,
            int(command.delivered),
            command.response_topic,
            command.correlation,
        ),
    )
    run.execute(
        "DELETE FROM command WHERE delivered = 1 AND status NOT IN ('ACCEPTED', 'RUNNING') AND seq <= "
        "(SELECT max(seq) FROM command) - ?",
        (MAXIMUM_COMMANDS,),
    )


_DAMAGE: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)


def _code_of(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _code_of(error) in _DAMAGE


def _put_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside


def _translated(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    if isinstance(error, sqlite3.Error):
        full = _code_of(error) in _FULL
    else:
        full = error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
    if full:
        return StoreFullError(
            f"cannot write {path}: {error}", hint="Free some space, or make the file system writable again."
        )
    return StoreError(f"cannot use {path}: {error}", hint="Look at the file and its folder: owner, mode, file system.")


@contextmanager
def _translating(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _translated(error, path) from error
