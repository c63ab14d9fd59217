"""`docs/troubleshooting.md` has the reasons that the code gives, all of them and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from edge.model.task import StopCode

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "troubleshooting.md").read_text()
SOURCES: Final = [
    ROOT / "edge" / "errors.py",
    *(ROOT / "edge" / "agent").rglob("*.py"),
    *(ROOT / "edge" / "model").rglob("*.py"),
]
_REASON: Final = re.compile(r"([A-Z][A-Za-z]+Error)(?:: |$)")


def rows(section: str) -> list[str]:
    """Return the first cells of the section's table."""
    text = re.split(r"^## ", PAGE.split(f"\n## {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]


def strings(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


SAID: Final = [text for path in sorted((ROOT / "edge").rglob("*.py")) for text in strings(path)]


def test_the_page_has_every_reason_name_and_no_other() -> None:
    found = {match[1] for path in SOURCES for text in strings(path) if (match := _REASON.match(text))}
    assert {name.strip("`") for name in rows("Reasons of containers and tasks")} == found


def test_the_page_has_every_stop_code_and_no_other() -> None:
    assert {name.strip("`") for name in rows("Why a task stopped")} == {code.value for code in StopCode}


@pytest.mark.parametrize(
    "words",
    [
        words
        for section in (
            "Why a revision was refused",
            "The device is OFFLINE",
            "The agent does not start",
            "A device does not enrol",
        )
        for cell in rows(section)
        if not cell.startswith("a path")
        for words in re.findall(r"`([^`]+)`", cell)
    ],
)
def test_the_words_that_the_page_explains_are_said_by_the_code(words: str) -> None:
    assert any(words in text for text in SAID)
