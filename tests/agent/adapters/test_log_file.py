"""A file as conmon writes it: the next one is written beside it and takes its name."""

import shutil
from pathlib import Path

import pytest

from edge.agent.adapters.log_file import LOG_NAME, LogFile, Position, positions_from_json, positions_to_json


def line(text: str) -> bytes:
    return f"2026-11-24T02:53:29.{abs(hash(text)) % 10**9:09d}+00:00 stdout F {text}\n".encode()


class Writer:
    """conmon's part."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG_NAME

    def write(self, *texts: str) -> None:
        with self.path.open("ab") as file:
            for text in texts:
                file.write(line(text))

    def rotate(self, log: LogFile | None = None) -> None:
        new = self.path.with_name(f"{LOG_NAME}.tmp")
        new.write_bytes(b"")
        new.replace(self.path)
        if log is not None:
            log.replaced()


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def read(log: LogFile) -> list[str]:
    return [entry.text for chunk in log.chunks() for entry in log.reader.read(chunk, lambda _size: True).entries]


def reopened(log: LogFile, folder: Path) -> LogFile:
    position = log.position()
    log.close()
    assert position is not None
    return LogFile(folder, positions_from_json(positions_to_json({"a": position}))["a"])


def test_each_line_is_read_once(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    assert read(log) == []
    assert log.position() is None
    writer.write("one", "two")
    assert (read(log), read(log)) == (["one", "two"], [])
    writer.write("three")
    assert read(log) == ["three"]
    log.close()


def test_the_end_of_a_file_that_was_replaced_is_read_before_the_new_one(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.write("one")
    assert read(log) == ["one"]
    writer.write("two")
    writer.rotate(log)
    writer.write("three")
    assert read(log) == ["two", "three"]
    writer.rotate(log)
    assert read(log) == []
    writer.write("four")
    assert (read(log), log.missed_files) == (["four"], 0)
    log.close()


def test_files_that_came_and_went_between_two_looks_are_counted(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.write("one")
    assert read(log) == ["one"]
    for number in range(3):
        writer.rotate(log)
        writer.write(f"lost {number}")
    assert (read(log), log.missed_files) == (["lost 2"], 2)
    log.close()


def test_files_that_came_and_went_before_the_first_look_are_counted(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.write("lost")
    writer.rotate(log)
    writer.write("one")
    assert (read(log), log.missed_files) == (["one"], 1)
    log.close()


def test_a_line_in_parts_goes_on_in_the_next_file(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.path.write_bytes(line("begun ").replace(b" F ", b" P "))
    assert read(log) == []
    writer.rotate(log)
    writer.write("and ended")
    assert read(log) == ["begun and ended"]
    log.close()


def test_a_file_that_was_cut_is_read_from_its_beginning(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.write("one", "two", "three")
    read(log)
    writer.path.write_bytes(line("anew"))
    assert read(log) == ["anew"]
    log.close()


def test_after_a_restart_it_goes_on_where_it_was(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.write("one")
    assert read(log) == ["one"]
    with writer.path.open("ab") as file:
        file.write(line("begun").replace(b" F ", b" P "))
    read(log)
    log = reopened(log, tmp_path)
    writer.write(" ended")
    assert read(log) == ["begun ended"]
    log.close()


@pytest.mark.parametrize("same_number", [False, True])
def test_a_file_that_was_replaced_meanwhile_is_read_whole(tmp_path: Path, writer: Writer, *, same_number: bool) -> None:
    log = LogFile(tmp_path, None)
    writer.write("one")
    read(log)
    log = reopened(log, tmp_path)
    if same_number:
        # As when the kernel gives the old file's number away again.
        writer.path.write_bytes(line("two") + line("three"))
    else:
        writer.rotate()
        writer.write("two", "three")
    assert (read(log), log.missed_files) == (["two", "three"], 1)
    log.close()


def test_a_log_that_is_gone_is_no_error(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.write("one")
    assert read(log) == ["one"]
    shutil.rmtree(tmp_path)
    assert read(log) == []
    log.close()


def test_very_much_is_read_in_parts(tmp_path: Path, writer: Writer) -> None:
    log = LogFile(tmp_path, None)
    writer.path.write_bytes(line("x" * 900) * 40_000)
    first = read(log)
    assert log.has_more
    second = read(log)
    assert (len(first) + len(second), log.has_more) == (40_000, False)
    log.close()


def test_what_is_not_a_position_is_left_out() -> None:
    assert positions_from_json(b"") == {}
    assert positions_from_json(b"[" * 10_000) == {}
    wrong = b'"a": 1, "b": {"head": "zz", "offset": 1}, "c": {"head": "00", "offset": "x"}'
    assert positions_from_json(b"{" + wrong + b', "d": {"head": "ff", "offset": -3}}') == {"d": Position("ff", 0)}
