"""Asking the image service, for the agent and for the commands (`edge.images.api` answers)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge import ask as asking

_ANSWER_SECONDS: Final = 3600.0
"""An image without an index is answered for once it is here; progress comes meanwhile."""


def ask(socket_path: Path, progress: Callable[[int, int], None] = lambda *_: None, /, **asked: Any) -> Any:
    """Ask the service on a socket, and return the result.

    Raises:
        NotFoundError: No service is there.
        EdgeError: What the service said.
    """
    return asking.ask(
        socket_path,
        asked,
        who="the image service",
        hint="It runs under `edge up` and systemd; name its socket with --socket. It is root's.",
        seconds=_ANSWER_SECONDS,
        progress=lambda told: progress(told["done"], told["total"]),
    )
