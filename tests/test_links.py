"""Every link from one of our documents to another, or into one, leads somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest

ROOT: Final = Path(__file__).parent.parent
_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")
_ELSEWHERE: Final = re.compile(r"^[a-z][a-z0-9+.-]*:")


def documents() -> list[Path]:
    """Return our documents: not those of what is installed or built here."""
    found = (path for path in ROOT.rglob("*.md") if not path.relative_to(ROOT).parts[0].startswith((".", "build")))
    return sorted(found)


def links(text: str) -> Iterator[str]:
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from _LINK.findall(re.sub(r"`[^`\n]*`", "", without_code))


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    without_code = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#{1,6} +(.*?) *$", without_code, re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def broken(document: Path, text: str) -> list[str]:
    """Return the links of a document, of that text, that lead nowhere."""
    found = []
    for link in links(text):
        if _ELSEWHERE.match(link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = document.parent / name
        if name and not target.exists():
            found.append(link)
            continue
        if anchor and anchor not in anchors(target.read_text() if name else text):
            found.append(link)
    return found


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    assert broken(document, document.read_text()) == []


def test_there_are_documents_to_look_at() -> None:
    assert {path.name for path in documents()} >= {"README.md", "architecture.md", "mqtt.md"}


@pytest.mark.parametrize("link", ["gone.md", "../gone/", "other.md#gone", "#gone"])
def test_a_link_to_nowhere_is_found(tmp_path: Path, link: str) -> None:
    (tmp_path / "other.md").write_text("# There\n")
    assert broken(tmp_path / "page.md", f"See [this]({link}).\n") == [link]


@pytest.mark.parametrize("link", ["other.md", "other.md#it-is-there", "#here", "https://example.org/gone", "."])
def test_a_link_to_somewhere_is_not_held_against_a_document(tmp_path: Path, link: str) -> None:
    (tmp_path / "other.md").write_text("## It is `there`\n")
    assert broken(tmp_path / "page.md", f"# Here\n\nSee [this]({link}).\n") == []


def test_what_stands_in_code_is_no_link(tmp_path: Path) -> None:
    assert broken(tmp_path / "page.md", "`a[0](x)`\n\n```\n[a](gone.md)\n```\n") == []
