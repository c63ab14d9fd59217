"""A few numbers that are either the old ones or the new ones after a power cut: two slots, written in turn."""

import struct
import zlib
from pathlib import Path
from typing import Final

from edge.agent.store.disk import Disk
from edge.agent.store.outbox.layout import SECTOR

_MAGIC: Final = b"EOS1"
_HEAD: Final = struct.Struct("<4sIQ")
_CRC: Final = struct.Struct("<I")


class Slots:
    """One file with two slots of 4 KiB: magic, count of numbers, generation, the numbers, crc32.

    A slot is never written while it is the only good one. OSError passes through; the former numbers then still stand.
    """

    def __init__(self, disk: Disk, path: Path, count: int) -> None:
        """Look at the file, if it is there; `count` is how many numbers it holds."""
        self._disk = disk
        self._path = path
        self._numbers = struct.Struct(f"<{count}Q")
        self._handle = -1
        self._generation = 0
        self.numbers: tuple[int, ...] | None = None
        """What was stored last; None when nothing was, or nothing of it is whole."""
        self.damaged = False
        """Something was stored, and none of it is whole."""
        try:
            handle = disk.open(path)
        except FileNotFoundError:
            return
        except OSError:
            self.damaged = True
            return
        try:
            self._load(handle)
        finally:
            disk.close(handle)

    def store(self, *numbers: int) -> None:
        """Put the numbers on the disk."""
        if self._handle < 0:
            self._handle = self._open()
        generation = self._generation + 1
        body = _HEAD.pack(_MAGIC, len(numbers), generation) + self._numbers.pack(*numbers)
        slot = (body + _CRC.pack(zlib.crc32(body))).ljust(SECTOR, b"\0")
        self._disk.write(self._handle, slot, generation % 2 * SECTOR)
        self._disk.sync(self._handle)
        self._generation = generation
        self.numbers = numbers

    def close(self) -> None:
        """Give the file back."""
        if self._handle >= 0:
            self._disk.close(self._handle)
            self._handle = -1

    def _open(self) -> int:
        try:
            handle = self._disk.open(self._path, write=True)
        except FileNotFoundError:
            handle = self._disk.open(self._path, create=True)
        if self._generation:
            return handle
        # New, or what an earlier call could not finish.
        try:
            self._disk.allocate(handle, 2 * SECTOR)
            self._disk.sync_folder(self._path.parent)
        except OSError:
            self._disk.close(handle)
            raise
        return handle

    def _load(self, handle: int) -> None:
        for place in (0, SECTOR):
            try:
                data = self._disk.read(handle, SECTOR, place)
            except OSError:
                # A sector that cannot be read is one that is not whole; writing it again may heal it.
                self.damaged = True
                continue
            found = self._parse(data)
            if found is None:
                self.damaged = self.damaged or any(data)
            elif found[0] > self._generation:
                self._generation, self.numbers = found
        self.damaged = self.damaged and self.numbers is None

    def _parse(self, data: bytes) -> tuple[int, tuple[int, ...]] | None:
        size = _HEAD.size + self._numbers.size
        if len(data) < size + _CRC.size:
            return None
        magic, count, generation = _HEAD.unpack_from(data)
        (crc,) = _CRC.unpack_from(data, size)
        if magic != _MAGIC or count * 8 != self._numbers.size or crc != zlib.crc32(data[:size]):
            return None
        return generation, self._numbers.unpack_from(data, _HEAD.size)
