"""docs/cli.md says what the code does."""

import re
from pathlib import Path

from edge import errors
from edge.cli import BROKEN_PIPE, COMMANDS, INTERRUPTED
from edge.errors import EdgeError

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def rows(heading: str) -> list[tuple[str, ...]]:
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def test_every_command_is_in_the_table_with_its_own_words() -> None:
    told = {name.strip("`"): summary for name, summary in rows("Commands")}
    assert told == {" ".join(("edge", *command)): row.summary for command, row in COMMANDS.items()}


def test_every_exit_code_is_in_the_table_with_the_errors_that_have_it() -> None:
    told = {int(code): set(re.findall(r"`(\w+Error)`", why)) for code, _, why in rows("Exit codes")}
    found: dict[int, set[str]] = {0: set(), INTERRUPTED: set(), BROKEN_PIPE: set()}
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, EdgeError):
            found.setdefault(error.exit_code, set()).add(name)
    assert told == found
