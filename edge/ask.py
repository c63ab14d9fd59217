"""Asking a process on this machine through its Unix socket: one JSON object in a line asks, lines of JSON answer.

{"op": "…", …}
{"progress": …}                             any number of them
{"result": …}  or  {"error": {"kind", "message", "hint", "retry"}}
"""

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge import errors
from edge.errors import EdgeError, NotFoundError, TransientError


def ask(  # noqa: PLR0913 - what a question is
    socket_path: Path,
    asked: Mapping[str, Any],
    *,
    who: str,
    hint: str,
    seconds: float,
    progress: Callable[[Any], None] = lambda _: None,
) -> Any:
    """Ask, and return the result.

    Args:
        socket_path: Where it listens.
        asked: What is asked.
        who: Whom, for a message: `the agent`.
        hint: What to do when nobody is there.
        seconds: How long a line of the answer may take.
        progress: Told each `progress` before the result.

    Raises:
        NotFoundError: Nobody listens there.
        TransientError: The answer broke off.
        EdgeError: What was answered.
    """
    with _connection(socket_path, who, hint, seconds) as connection, connection.makefile("rwb") as stream:
        stream.write(json.dumps(dict(asked)).encode() + b"\n")
        stream.flush()
        for line in stream:
            told = json.loads(line)
            if "progress" in told:
                progress(told["progress"])
            elif "error" in told:
                raise _error(told["error"])
            else:
                return told["result"]
    raise TransientError(f"{who} ended in the middle of its answer", hint="Ask again.")


def error_told(error: EdgeError) -> dict[str, Any]:
    """Return an error as the other end makes it one again."""
    told: dict[str, Any] = {"kind": type(error).__name__, "message": str(error), "hint": error.hint}
    problems = getattr(error, "problems", ())
    return told | {"retry": isinstance(error, TransientError), "problems": [list(one) for one in problems]}


@contextmanager
def _connection(path: Path, who: str, hint: str, seconds: float) -> Iterator[socket.socket]:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(seconds)
    try:
        connection.connect(str(path))
        yield connection
    except TimeoutError as error:
        raise TransientError(f"{who} did not answer in {seconds:g} s", hint="Ask again.") from error
    except OSError as error:
        raise NotFoundError(f"{who} does not answer on {path}: {error.strerror or error}", hint=hint) from error
    finally:
        connection.close()


def _error(told: Mapping[str, Any]) -> EdgeError:
    kind = getattr(errors, str(told.get("kind")), None)
    if not (isinstance(kind, type) and issubclass(kind, EdgeError)):
        kind = TransientError if told.get("retry") else EdgeError
    message, hint = str(told.get("message")), str(told.get("hint") or "")
    problems = tuple((str(path), str(text)) for path, text in told.get("problems") or ())
    if problems and kind is errors.InvalidInputError:
        return errors.InvalidInputError(message, hint=hint, problems=problems)
    return kind(message, hint=hint)
