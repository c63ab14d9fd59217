"""Sizes as Docker's options write them: `10m`, `512k`, `1g`, `1000`."""

import re
from typing import Final

_FACTORS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SIZE: Final = re.compile(r"(\d{1,12})([bkmg]?)", re.IGNORECASE)


def parse_size(text: str) -> int | None:
    """Return the size in bytes, or None when it is not one; at least 1."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) < 1:
        return None
    return int(match[1]) * _FACTORS[match[2].lower()]
