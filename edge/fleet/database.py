"""The fleet database: one SQLite file that says which devices, task definitions and tasks there are.

Several `edge` commands may use it at the same time; what must not be interleaved is done inside `transaction()`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from edge.errors import StoreError, StoreFullError

_MIGRATIONS: Final = (
    """
    CREATE TABLE settings (
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE devices (
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        added_at TEXT NOT NULL,
        certificate_serial TEXT NOT NULL,
        certificate_expires_at TEXT NOT NULL,
        revision INTEGER NOT NULL DEFAULT 0,           -- of the newest desired state composed
        reported_revision INTEGER NOT NULL DEFAULT 0,  -- in force on the device when it last reported
        published_revision INTEGER NOT NULL DEFAULT 0, -- of the newest one the broker acknowledged
        desired BLOB,                                  -- that newest one, sealed
        PRIMARY KEY (cluster, device)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE families (
        family TEXT PRIMARY KEY,
        last_revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE task_definitions (
        family TEXT NOT NULL REFERENCES families,
        revision INTEGER NOT NULL,
        document TEXT NOT NULL,
        registered_at TEXT NOT NULL,
        PRIMARY KEY (family, revision)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tasks (
        task_id TEXT PRIMARY KEY,
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        family TEXT NOT NULL,
        definition_revision INTEGER NOT NULL,
        task_group TEXT NOT NULL,
        started_by TEXT NOT NULL,
        created_at TEXT NOT NULL,
        created_revision INTEGER NOT NULL,  -- the first desired state that had it
        changed_revision INTEGER NOT NULL,  -- the first desired state that had its desired status
        desired_status TEXT NOT NULL,
        stopped_reason TEXT NOT NULL DEFAULT '',
        last_status TEXT NOT NULL DEFAULT '', -- empty: the device has not spoken of it yet
        reported TEXT NOT NULL DEFAULT '{}',  -- the ECS task object as the device reported it last
        FOREIGN KEY (cluster, device) REFERENCES devices,
        FOREIGN KEY (family, definition_revision) REFERENCES task_definitions
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tasks_of_device ON tasks (cluster, device, last_status);
    """,
    # Devices begin tasks by themselves, of definitions that nobody registered here as well: the tasks are made anew
    # without the reference to a task definition.
    """
    CREATE TABLE device_work (
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        kind TEXT NOT NULL,      -- service or schedule
        name TEXT NOT NULL,
        document TEXT NOT NULL,  -- as the desired state has it
        PRIMARY KEY (cluster, device, kind, name),
        FOREIGN KEY (cluster, device) REFERENCES devices
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE tasks_anew (
        task_id TEXT PRIMARY KEY,
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        family TEXT NOT NULL,
        definition_revision INTEGER NOT NULL,
        task_group TEXT NOT NULL,
        started_by TEXT NOT NULL,
        created_at TEXT NOT NULL,
        created_revision INTEGER NOT NULL,  -- the first desired state that had it; 0 of a task the device began
        changed_revision INTEGER NOT NULL,  -- the first desired state that had its desired status
        desired_status TEXT NOT NULL,
        stopped_reason TEXT NOT NULL DEFAULT '',
        last_status TEXT NOT NULL DEFAULT '', -- empty: the device has not spoken of it yet
        reported TEXT NOT NULL DEFAULT '{}',  -- the ECS task object as the device reported it last
        origin TEXT NOT NULL DEFAULT 'assigned',
        FOREIGN KEY (cluster, device) REFERENCES devices
    ) STRICT, WITHOUT ROWID;
    INSERT INTO tasks_anew SELECT *, 'assigned' FROM tasks;
    DROP TABLE tasks;
    ALTER TABLE tasks_anew RENAME TO tasks;
    CREATE INDEX tasks_of_device ON tasks (cluster, device, last_status);
    """,
    # A fleet has several keys, and its trust bundles follow one another.
    """
    CREATE TABLE keys (
        name TEXT PRIMARY KEY,
        key_id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,      -- file, command or absent
        location TEXT NOT NULL,  -- the file, below the fleet's folder; the command as a JSON list; nothing
        public BLOB NOT NULL,
        added_at TEXT NOT NULL,
        retired_at TEXT NOT NULL DEFAULT ''
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE trust_bundles (
        version INTEGER PRIMARY KEY,
        envelope BLOB NOT NULL
    ) STRICT;
    ALTER TABLE devices ADD COLUMN published_trust INTEGER NOT NULL DEFAULT 0; -- bundle the broker acknowledged
    """,
    # A device may have had several certificates, and each can be revoked.
    """
    CREATE TABLE certificates (
        serial TEXT PRIMARY KEY, -- hexadecimal
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        issued_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        revoked_at TEXT NOT NULL DEFAULT '',
        FOREIGN KEY (cluster, device) REFERENCES devices
    ) STRICT, WITHOUT ROWID;
    INSERT INTO certificates SELECT certificate_serial, cluster, device, added_at, certificate_expires_at, ''
        FROM devices WHERE certificate_serial <> '';
    ALTER TABLE devices ADD COLUMN revoked_at TEXT NOT NULL DEFAULT ''; -- no certificate of it counts since then
    """,
    # Devices enrol by activation id and code. The code itself is kept nowhere.
    """
    CREATE TABLE activations (
        activation TEXT PRIMARY KEY,
        cluster TEXT NOT NULL,
        request_key BLOB NOT NULL,   -- proves a device's requests
        answer_key BLOB NOT NULL,    -- proves our answers
        password_hash TEXT NOT NULL, -- of the password at the broker, as Mosquitto has it
        device TEXT NOT NULL,        -- which name it is for; may have `*` in it
        replaces INTEGER NOT NULL,   -- 1: for a device that is there already
        approval INTEGER NOT NULL,   -- 1: an operator decides about each request
        registration_limit INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL,
        revoked_at TEXT NOT NULL DEFAULT ''
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE enrollments (
        enrollment TEXT PRIMARY KEY, -- digest of the three that follow
        activation TEXT NOT NULL REFERENCES activations,
        device TEXT NOT NULL,
        key_digest TEXT NOT NULL,    -- SHA-256 of the device's public key
        status TEXT NOT NULL,        -- PENDING, APPROVED, DENIED or ENROLLED
        requested_at TEXT NOT NULL,
        decided_at TEXT NOT NULL DEFAULT '',
        serial TEXT NOT NULL DEFAULT '',     -- of the certificate
        certificate TEXT NOT NULL DEFAULT '' -- PEM
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX enrollments_of_activation ON enrollments (activation, status);
    """,
    # Secrets, and to which devices they are given.
    """
    CREATE TABLE secrets (
        name TEXT PRIMARY KEY,
        version INTEGER NOT NULL,
        set_at TEXT NOT NULL,
        value BLOB                 -- encrypted; null: removed, and the version is kept
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE device_secrets (  -- what its newest desired state names
        cluster TEXT NOT NULL,
        device TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,  -- 0: it was not given
        PRIMARY KEY (cluster, device, name),
        FOREIGN KEY (cluster, device) REFERENCES devices
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE devices ADD COLUMN secrets_key BLOB; -- X25519, signed by its certificate
    """,
)
Row = sqlite3.Row
"""A row by column name; the database is nobody else's to import."""
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR})
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Database:
    """An open fleet database; one thread uses it.

    Attributes:
        path: The file.

    Raises:
        StoreError: From every method: the file cannot be used; `StoreFullError` when the disk is full or read-only.
    """

    def __init__(self, path: Path, migrations: Sequence[str] = _MIGRATIONS) -> None:
        """Open the file, making it and bringing it up to date: each migration is a script, applied once, in order."""
        self.path = path
        self._migrations = migrations
        with self._mapped():
            self._connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """Run one statement and return what it gives."""
        with self._mapped():
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """Run one statement and return its first row, or None."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def change(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement that writes and return how many rows it changed; only inside `transaction()`."""
        with self._mapped():
            return self._connection.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all of what is inside or nothing; on the disk when this ends. Other writers wait meanwhile."""
        with self._mapped():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with self._mapped():
                self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _prepare(self) -> None:
        self._connection.row_factory = sqlite3.Row
        with self._mapped():
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        if self._version() != len(self._migrations):
            with self.transaction():
                self._migrate()

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])

    def _migrate(self) -> None:
        version = self._version()
        if version > len(self._migrations):
            raise StoreError(
                f"{self.path} was written by a newer version of edge (schema {version})",
                hint="Use that version, or a newer one.",
            )
        for script in self._migrations[version:]:
            # One statement at a time: `executescript` would commit the transaction that makes a migration whole.
            for statement in _statements(script):
                self.change(statement)
        self.change(f"PRAGMA user_version = {len(self._migrations)}")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: sqlite3.Error) -> StoreError:
        # The low byte is the primary code; the rest says where exactly.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _FULL:
            return StoreFullError(
                f"cannot write {self.path}: {error}", hint="Free some space or make it writable, then try again."
            )
        if code in _BROKEN:
            return StoreError(f"{self.path} is damaged: {error}", hint="Put back a copy of the fleet folder.")
        if code == sqlite3.SQLITE_BUSY:
            return StoreError(f"{self.path} is in use by another edge command for 10 s", hint="Try again later.")
        return StoreError(f"cannot use {self.path}: {error}")


def _statements(script: str) -> Iterator[str]:
    buffer = ""
    for line in script.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            yield buffer
            buffer = ""
