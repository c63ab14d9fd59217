"""The fields of a tar header block and of PAX records, as Go's `archive/tar` understands them.

SOCI builds its zTOCs with that reader, so what a field means is what it makes of it. Formats: POSIX.1-2001 pax,
https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

import re
import struct
import zlib
from functools import lru_cache
from typing import Final, NamedTuple

from edge.errors import InvalidInputError

BLOCK_BYTES: Final = 512

_BLOCK = struct.Struct("<100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_DECIMAL = re.compile(rb"[+-]?[0-9]+", re.ASCII)
_NANO: Final = 1_000_000_000
_ADLER: Final = 65_521
_LEAST_RECORD: Final = 5
_I64: Final = 1 << 63
_NUL_FREE: Final = frozenset({b"path", b"linkpath", b"uname", b"gname"})


class Header(NamedTuple):
    """A header block's fields; `modified` is in seconds."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    modified: int
    type: bytes
    linkname: bytes
    uname: bytes
    gname: bytes
    devmajor: int
    devminor: int


def malformed(problem: str) -> InvalidInputError:
    """Make the error for a tar that cannot be read."""
    return InvalidInputError(f"the layer is not a readable tar: {problem}")


def align(size: int) -> int:
    """Round up to whole blocks."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


@lru_cache(maxsize=4096)
def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


@lru_cache(maxsize=8192)
def _number(field: bytes) -> int:
    if field[0] & 0x80:
        negative = field[0] & 0x40
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if negative:
            value -= 1 << (8 * len(field) - 1)
        if not -_I64 <= value < _I64:
            raise malformed("a number is too large")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if digits.translate(None, b"01234567"):
        raise malformed(f"{field!r} is not an octal number")
    return int(digits, 8) if digits else 0


def _check_sum(block: bytes, field: bytes) -> None:
    # Adler-32's low half is 1 plus the sum of the bytes: as good here, and a tenth of the time in Python.
    found = ((zlib.adler32(block) & 0xFFFF) - 1 - sum(field) + 8 * ord(" ")) % _ADLER
    stated = _number(field)
    if found != stated % _ADLER and stated != _signed_sum(block, field):
        raise malformed("a header's checksum is wrong")


def _signed_sum(block: bytes, field: bytes) -> int:
    signed: int = sum(struct.unpack("<512b", block)) - sum(struct.unpack("<8b", field))
    return signed + 8 * ord(" ")


def parse_header(block: bytes) -> Header:
    """Read a header block.

    Raises:
        InvalidInputError: Its checksum or a number is wrong.
    """
    raw = _BLOCK.unpack(block)
    name, mode, uid, gid, size, modified, checksum, kind, link, magic, uname, gname, major, minor, prefix, tail = raw
    _check_sum(block, checksum)
    name = _text(name)
    owner, device = (b"", b""), (0, 0)
    if magic.startswith(b"ustar\0") or magic == b"ustar  \0":
        owner = _text(uname), _text(gname)
        device = _number(major), _number(minor)
        if start := _prefix(magic, prefix, tail):
            name = start + b"/" + name
    numbers = _number(mode), _number(uid), _number(gid), _number(size), _number(modified)
    return Header(name, *numbers, kind, _text(link), *owner, *device)


def _prefix(magic: bytes, prefix: bytes, tail: bytes) -> bytes:
    if magic.startswith(b"ustar\0"):
        return _text(prefix[:131] if tail.endswith(b"tar\0") else prefix)
    # GNU keeps access and change times here; old Go writers put a prefix there by mistake.
    try:
        for field in (prefix[:12], prefix[12:24]):
            _ = field[0] and _number(field)
    except InvalidInputError:
        return _text(prefix) if _text(prefix).isascii() else b""
    return b""


def parse_pax(body: bytes) -> dict[bytes, bytes]:
    """Read the records of a PAX extended header.

    Raises:
        InvalidInputError: A record is malformed.
    """
    records = dict[bytes, bytes]()
    at = 0
    while at < len(body):
        length_text, found, _ = body[at : at + 20].partition(b" ")
        if not found or not _DECIMAL.fullmatch(length_text):
            raise malformed("a PAX record has no length")
        end = at + int(length_text)
        start = at + len(length_text) + 1
        if end - at < _LEAST_RECORD or end > len(body) or end <= start or body[end - 1 : end] != b"\n":
            raise malformed("a PAX record has a wrong length")
        key, equals, value = body[start : end - 1].partition(b"=")
        if not key or not equals or b"\0" in (value if key in _NUL_FREE else key):
            raise malformed("a PAX record has no key or no value")
        records[key] = value
        at = end
    return records


def parse_decimal(text: bytes) -> int:
    """Read a PAX integer.

    Raises:
        InvalidInputError: It is not a 64-bit decimal number.
    """
    if not _DECIMAL.fullmatch(text) or not -_I64 <= (value := int(text[:24])) < _I64 or len(text) > 24:  # noqa: PLR2004
        raise malformed(f"{text[:40]!r} is not a number")
    return value


@lru_cache(maxsize=4096)
def parse_pax_time(text: bytes) -> int:
    """Read a PAX time; nanoseconds since 1970 UTC.

    Raises:
        InvalidInputError: It is not `seconds[.fraction]`.
    """
    whole, _, fraction = text.partition(b".")
    seconds = parse_decimal(whole)
    if fraction.translate(None, b"0123456789"):
        raise malformed(f"{text[:40]!r} is not a time")
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    return seconds * _NANO + (-nanoseconds if whole.startswith(b"-") else nanoseconds)
