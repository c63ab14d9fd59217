"""Files cut into chunks where their content says so: what is inserted or removed changes the chunks around it only.

A cut comes after one of a few bytes that are frequent in text, in x86-64 code and in aarch64 code, where the CRC-32 of
the 32 bytes before it has its low bits zero. Searching for these bytes is the regular expression engine's work, so that
Python looks at one byte in a hundred. Where a cut is depends on nothing before the chunk.
"""

import hashlib
import re
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

MIN_CHUNK: Final = 16 << 10
MAX_CHUNK: Final = 256 << 10
DIGEST_BYTES: Final = 16
"""Of SHA-256: nobody finds other bytes of a given digest (2^128), and the whole tar's digest is proved in the end."""

_CANDIDATE: Final = re.compile(b"[\n,\x48\xf9]")
_MASK: Final = (1 << 9) - 1
"""Chunks of some 60 KiB on average where all bytes are equally frequent."""
_WINDOW: Final = 32


class Chunk(NamedTuple):
    """A part of a file's content: bytes, and the first half of their SHA-256."""

    size: int
    digest: bytes


def digest(data: bytes | memoryview) -> bytes:
    """Name a chunk."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def next_cut(data: bytes | bytearray | memoryview, start: int) -> int:
    """Return where the chunk that begins at `start` ends; at the end of `data` at the latest.

    `data` must go on for `MAX_CHUNK` bytes behind `start`, or to the end of the file.
    """
    end = min(len(data), start + MAX_CHUNK)
    for found in _CANDIDATE.finditer(data, start + MIN_CHUNK, end):
        at = found.end()
        if not zlib.crc32(data[at - _WINDOW : at]) & _MASK:
            return at
    return end


def cut(data: bytes | memoryview) -> Iterator[tuple[int, Chunk]]:
    """Yield the chunks of a whole file, each with where it begins."""
    at, view = 0, memoryview(data)
    while at < len(view):
        end = next_cut(view, at)
        yield at, Chunk(end - at, digest(view[at:end]))
        at = end


class Cutter:
    """Cuts one file that comes in pieces into the same chunks as `cut`."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes | memoryview) -> Iterator[Chunk]:
        """Take the next bytes, and yield the chunks that are certain by now. Take them all."""
        self._held += piece
        at = 0
        while len(self._held) - at >= MAX_CHUNK:
            end = next_cut(self._held, at)
            with memoryview(self._held) as view, view[at:end] as chunk:
                yield Chunk(end - at, digest(chunk))
            at = end
        del self._held[:at]

    def finish(self) -> Iterator[Chunk]:
        """Say that the file is at its end, and yield the rest; the next file may begin."""
        for _, chunk in cut(bytes(self._held)):
            yield chunk
        self._held.clear()
