"""Where the commands `edge image …` find the image service."""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

DEFAULT_SOCKET: Final = Path("/run/edge/images.sock")
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_STEP: Final = 1000
_BAR: Final = 20


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Declare `--socket`."""
    parser.add_argument(
        "--socket", type=Path, default=DEFAULT_SOCKET, metavar="PATH", help="the image service's (default: %(default)s)"
    )


def size_text(count: float) -> str:
    """Return bytes as people read them: `101.2 MB`."""
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} {_UNITS[-1]}"


def bar(image: dict[str, Any]) -> str:
    """Return how much of an image has arrived: `[########            ]  40 %`."""
    share = image["here"] / image["size"] if image["size"] else 1.0
    full = int(share * _BAR)
    return f"[{'#' * full:<{_BAR}}] {int(share * 100):3} %"


def row(image: dict[str, Any]) -> tuple[str, ...]:
    """Return an image's line in a table."""
    name = image["names"][0] if image["names"] else "<none>"
    return name, image["imageId"][:12], image["state"], bar(image), size_text(image["size"]), image["problem"]


def show_line(text: str) -> None:
    """Show progress, in place of what was shown before; nothing where nobody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


COLUMNS: Final = ("IMAGE", "ID", "STATE", "HERE", "SIZE", "PROBLEM")
