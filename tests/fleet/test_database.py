import sqlite3
from pathlib import Path

import pytest

from edge.errors import StoreError, StoreFullError
from edge.fleet.database import Database


def put(database: Database, key: str) -> None:
    database.change("INSERT INTO settings VALUES (?, 'value')", (key,))


def put_all(database: Database, *keys: str) -> None:
    with database.transaction():
        for key in keys:
            put(database, key)


def put_and_break_off(database: Database) -> None:
    with database.transaction():
        put(database, "a")
        raise KeyboardInterrupt


def keys(database: Database) -> list[str]:
    return [row["key"] for row in database.rows("SELECT key FROM settings ORDER BY key")]


def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    with Database(tmp_path / "fleet.db") as database, database.transaction():
        put(database, "a")
    with Database(tmp_path / "fleet.db") as database:
        assert keys(database) == ["a"]


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with Database(tmp_path / "fleet.db") as database:
        with pytest.raises(KeyboardInterrupt):
            put_and_break_off(database)
        assert keys(database) == []


def test_a_broken_statement_inside_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    with Database(tmp_path / "fleet.db") as database:
        with pytest.raises(StoreError, match="UNIQUE"):
            put_all(database, "a", "a")
        assert keys(database) == []


def test_reading_does_not_wait_for_somebody_who_writes(tmp_path: Path) -> None:
    with Database(tmp_path / "fleet.db") as writer, writer.transaction():
        put(writer, "a")
        with Database(tmp_path / "fleet.db") as reader:
            assert keys(reader) == []


def test_a_full_disk_is_told_as_one_and_loses_nothing(tmp_path: Path) -> None:
    with Database(tmp_path / "fleet.db") as database:
        with database.transaction():
            put(database, "kept")
        [pages] = database.rows("PRAGMA page_count")
        database.rows(f"PRAGMA max_page_count = {pages[0]}")
        with pytest.raises(StoreFullError, match="full"), database.transaction():
            put(database, "x" * 1_000_000)
        assert keys(database) == ["kept"]


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="damaged"):
        Database(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_database_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        Database(path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot use"):
        Database(tmp_path / "away" / "fleet.db")
