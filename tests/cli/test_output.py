import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from edge.cli.output import age, clean, clock_time, coloured, print_fields, print_table

TABLE = "from edge.cli.output import print_table; print_table(('NAME', 'STATUS'), [('a', 'RUNNING')])"
HIDE_RICH = "import sys; sys.modules['rich'] = None; sys.modules['rich.console'] = None\n"


def at_a_terminal(program: str, **environment: str) -> str:
    """Run a program whose stdout is a terminal and return what it wrote."""
    ours, theirs = pty.openpty()
    clean_environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    subprocess.run(
        [sys.executable, "-c", program],
        stdout=theirs,
        check=True,
        env=clean_environment | {"TERM": "xterm", "COLUMNS": "80"} | environment,
    )
    os.close(theirs)
    written = os.read(ours, 65536).decode()
    os.close(ours)
    return written


def test_a_table_is_plain_and_aligned_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "STATUS"), [("a", "RUNNING"), ("longer", "")])
    assert capsys.readouterr().out == "NAME    STATUS\na       RUNNING\nlonger\n"


def test_a_table_has_colour_at_a_terminal() -> None:
    assert "\x1b[" in at_a_terminal(TABLE)


def test_a_table_has_no_colour_when_that_is_asked() -> None:
    assert "\x1b[" not in at_a_terminal(TABLE, NO_COLOR="1")


def test_a_table_is_plain_where_rich_is_not_installed() -> None:
    assert at_a_terminal(HIDE_RICH + TABLE).split() == ["NAME", "STATUS", "a", "RUNNING"]


def test_control_characters_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert clean("a\x1b[2Jb\nc\u202e") == "a [2Jb c "
    print_fields([("name", "x\x07"), ("empty", "")])
    assert capsys.readouterr().out == "name  x \n"


def test_a_word_has_no_colour_when_nobody_looks() -> None:
    assert coloured("RUNNING") == "RUNNING"


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        ("2026-01-01T00:00:00Z", "3 d"),
        ("2026-01-03T23:00:00Z", "1 h"),
        ("2026-01-03T23:59:01Z", "59 s"),
        ("2099-01-01T00:00:00Z", "0 s"),
        ("soon", ""),
    ],
)
def test_an_age_is_told_in_one_unit(timestamp: str, text: str) -> None:
    assert age(timestamp, datetime(2026, 1, 4, tzinfo=UTC)) == text


def test_what_is_no_time_is_shown_as_it_is() -> None:
    assert clock_time("soon") == "soon"
