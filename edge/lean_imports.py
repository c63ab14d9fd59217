"""Importing a library without an optional part of it that costs memory and is not used here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(module: str) -> Iterator[None]:
    """Let imports of `module` in this block find nothing, as if it were not installed; elsewhere it stays as it was.

    A library that is already imported keeps what it has.
    """
    absent = object()
    before = sys.modules.get(module, absent)
    sys.modules[module] = None  # type: ignore[assignment]  # "None": the import system's own word for not there
    try:
        yield
    finally:
        if before is absent:
            del sys.modules[module]
        else:
            sys.modules[module] = before  # type: ignore[assignment]
