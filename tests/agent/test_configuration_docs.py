"""`docs/configuration.md` says what the code says, in both directions."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from edge.agent.config import KEYS, load_config

PAGE: Final = Path(__file__).parent.parent.parent / "docs" / "configuration.md"


def rows() -> dict[str, list[str]]:
    cells = [
        [c.strip() for c in line.strip("|").split("|")] for line in PAGE.read_text().splitlines() if line[:3] == "| `"
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_page_has_every_key_and_no_other() -> None:
    assert set(rows()) == set(KEYS)


@pytest.mark.parametrize("name", KEYS)
def test_the_page_has_the_default_of_the_code(name: str) -> None:
    key = KEYS[name]
    if key.required:
        expected = "required"
    elif key.default is None:
        expected = "none"
    elif key.kind is list:
        expected = f"`{json.dumps(list(key.default))}`"
    else:
        expected = f"`{str(key.default).lower() if key.kind is bool else key.default}`"
    assert rows()[name][0] == expected


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.kind is int])
def test_the_page_has_the_bounds_of_the_code(name: str) -> None:
    assert rows()[name][1] == f"{KEYS[name].least} to {KEYS[name].most}"


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.choices])
def test_the_page_has_the_choices_of_the_code(name: str) -> None:
    assert tuple(re.findall(r"`([^`]+)`", rows()[name][1])) == KEYS[name].choices


def test_the_example_of_the_page_is_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(PAGE.read_text().partition("```toml\n")[2].partition("```")[0])
    assert load_config(path).ca_file == tmp_path / "ca.crt"
