"""A process that opens secrets, puts their values into files, and ends: the agent itself never has one in its memory.

On its standard input comes JSON: `key` (a file), `cluster`, `device`, `secrets` (`name`, `version`, `sealed`, `file`).
Nothing of a value is in its arguments, its environment or its messages; it leaves no core dump.
"""

import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.agent.secrets_key import own_key
from edge.errors import EdgeError, StoreError, TrustError
from edge.model.sealing import open_secret
from edge.model.secrets import associated_data
from edge.process_memory import keep_to_oneself


def open_all(asked: Mapping[str, Any]) -> None:
    """Put each value into its file, mode 0600; all of them or none.

    Raises:
        TrustError: One does not open; the message names it.
        StoreError: A file cannot be written, or the key cannot be read.
    """
    key = own_key(Path(asked["key"]))
    opened: list[tuple[str, bytes]] = []
    for one in asked["secrets"]:
        bound_to = associated_data(asked["cluster"], asked["device"], one["name"], one["version"])
        try:
            value = open_secret(key, base64.b64decode(one["sealed"]), bound_to)
        except (TrustError, ValueError) as error:
            raise TrustError(f"secret {one['name']}, version {one['version']}: {error}") from error
        opened.append((one["file"], value))
    for file, value in opened:
        _put(file, value)


def _put(file: str, value: bytes) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as written:
            written.write(value)
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror}") from error


if __name__ == "__main__":
    keep_to_oneself()
    try:
        open_all(json.load(sys.stdin))
    except EdgeError as error:
        sys.exit(str(error))
