"""How things are shown: tables with colour at a terminal, plain aligned text elsewhere, JSON for programs."""

import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

_COLOURS: Final = {
    "RUNNING": "green",
    "ONLINE": "green",
    "SUCCEEDED": "green",
    "APPLIED": "green",
    "STOPPED": "bright_black",
    "OFFLINE": "red",
    "REJECTED": "red",
    "FAILED": "red",
    "PENDING": "yellow",
    "PROVISIONING": "yellow",
    "ACTIVATING": "yellow",
    "STOPPING": "yellow",
    "DEACTIVATING": "yellow",
    "DEPROVISIONING": "yellow",
}
_SPINNER: Final = "|/-\\"
_PATIENCE_SECONDS: Final = 1.0
"""Nothing is said about what takes less."""


def is_terminal(stream: Any) -> bool:
    """Say whether a person looks at `stream`."""
    return bool(stream.isatty())


def has_colour() -> bool:
    """Say whether stdout shows colours: a terminal, and nobody said NO_COLOR (https://no-color.org)."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def print_json_line(document: Any) -> None:
    """Print one JSON document of many, on a line of its own, at once."""
    print(json.dumps(document, ensure_ascii=False), flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; what came from a device cannot steer the terminal."""
    cleaned = [[clean(cell) for cell in row] for row in rows]
    if not has_colour() or not _rich_table(columns, cleaned):
        _plain_table(columns, cleaned)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one under the other; an empty value is left out."""
    shown = [(name, clean(value)) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {coloured(value)}")


def coloured(word: str) -> str:
    """Colour a status at a terminal; any other word is returned as it is."""
    colour = _COLOURS.get(word.split(" ", maxsplit=1)[0])
    if colour is None or not has_colour():
        return word
    code = {"green": "32", "yellow": "33", "red": "31", "bright_black": "90"}[colour]
    return f"\x1b[{code}m{word}\x1b[0m"


def note(text: str) -> None:
    """Tell the person something that is not the result."""
    print(clean(text), file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """Take control characters out: a device's words are shown, not obeyed."""
    return "".join(character if character.isprintable() else " " for character in text)


def clock_time(timestamp: str) -> str:
    """Shorten RFC 3339 to the time of day where the reader is; what is no time is returned as it is.

    >>> clock_time("soon")
    'soon'
    """
    try:
        return datetime.fromisoformat(timestamp).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return timestamp


def age(timestamp: str, moment: datetime) -> str:
    """Say how long ago something was.

    >>> age("2026-01-01T00:00:00Z", datetime(2026, 1, 1, 2, 0, tzinfo=UTC))
    '2 h'
    """
    try:
        seconds = (moment - datetime.fromisoformat(timestamp).astimezone(UTC)).total_seconds()
    except ValueError:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Show that something is under way when it takes over a second and somebody looks."""
    if not is_terminal(sys.stderr):
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_spin, args=(text, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _spin(text: str, done: threading.Event) -> None:
    delay, turn = _PATIENCE_SECONDS, 0
    while not done.wait(delay):
        delay = 0.1
        print(f"\r{_SPINNER[turn % 4]} {clean(text)} …", end="", file=sys.stderr, flush=True)
        turn += 1
    if turn:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        return False
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    Console().print(table)
    return True
