"""A stream's folder of segments: files of one size, preallocated once and used again under a new number."""

import contextlib
import re
from pathlib import Path
from typing import Final

from edge.agent.store.disk import Disk, make_folders
from edge.agent.store.outbox.layout import SECTOR

SEGMENT_SIZE: Final = 1024 * 1024
SPARES: Final = 2
"""Segments kept to be used again; more are removed, so that the space is anybody's."""
_NAME: Final = re.compile(r"([0-9]{16})\.seg")


class Segments:
    """The files, by number. Not thread-safe; OSError passes through.

    Attributes:
        folder: Made when the first segment is.
        numbers: Segments that hold something, in order.
    """

    def __init__(self, disk: Disk, folder: Path, size: int = SEGMENT_SIZE) -> None:
        self._disk = disk
        self.folder = folder
        self.size = size
        self.numbers: list[int] = self._found()
        self._spares: list[int] = []
        self._highest = self.numbers[-1] if self.numbers else 0
        self._has_folder = False
        self._write_number = 0
        self._write_handle = -1
        self._read_number = 0
        self._read_handle = -1

    @property
    def files(self) -> int:
        """How many files there are, those that wait to be used again as well."""
        return len(self.numbers) + len(self._spares)

    def has_spare(self) -> bool:
        """The next segment needs no space."""
        return bool(self._spares)

    @property
    def writing(self) -> int:
        """The segment that is written to; 0 when there is none."""
        return self._write_number

    def after(self, number: int) -> int | None:
        """Return the next segment."""
        return next((one for one in self.numbers if one > number), None)

    def begin(self) -> int:
        """Make a new segment, the one to write to, and return its number: its name is on the disk."""
        self.abandon()
        self._have_folder()
        self._highest += 1
        number = self._highest
        path = self._path(number)
        handle = -1
        is_new = False
        try:
            if self._spares:
                self._disk.rename(self._path(self._spares[0]), path)
                self._spares.pop(0)
                handle = self._disk.open(path, write=True)
            else:
                handle = self._disk.open(path, create=True)
                is_new = True
            self._disk.allocate(handle, self.size)
            if is_new:
                # Otherwise a file system notes at each sync which reserved sectors are in use now: 16 KiB each time.
                self._disk.write(handle, bytes(self.size), 0)
            self._disk.sync_folder(self.folder)
        except OSError:
            self._give_up(number, handle)
            raise
        self.numbers.append(number)
        self._write_number, self._write_handle = number, handle
        return number

    def recover(self, first: int, last: int) -> None:
        """Keep the segments from `first` to `last` (numbers); the others hold nothing and are used again."""
        kept = [number for number in self.numbers if first <= number <= last]
        self._spares.extend(number for number in self.numbers if number not in kept)
        self.numbers = kept
        # A cursor never points behind a number that will be given.
        self._highest = max(self._highest, first)

    def go_on(self, number: int) -> None:
        """Write to a segment that is there already."""
        self._have_folder()
        handle = self._disk.open(self._path(number), write=True)
        try:
            self._disk.allocate(handle, self.size)
            # Whoever made it may have been killed before its name was on the disk.
            self._disk.sync_folder(self.folder)
        except OSError:
            self._disk.close(handle)
            raise
        self._write_number, self._write_handle = number, handle

    def abandon(self) -> None:
        """Write no more to the segment that is written to."""
        if self._write_handle >= 0:
            self._disk.close(self._write_handle)
        self._write_number, self._write_handle = 0, -1

    def write(self, data: bytes, offset: int) -> None:
        """Write to the segment that is written to; on the disk when this returns."""
        self._disk.write(self._write_handle, data, offset)
        self._disk.sync(self._write_handle)

    def read(self, number: int, size: int, offset: int) -> bytes:
        """Read from a segment; sectors that cannot be read come as zeros, what is beyond the end does not come."""
        try:
            handle = self._handle_of(number)
        except OSError:
            return b""
        try:
            return self._disk.read(handle, size, offset)
        except OSError:
            pieces = range(offset, offset + size, SECTOR)
            return b"".join(self._read_sector(handle, min(SECTOR, offset + size - at), at) for at in pieces)

    def release(self, before: int) -> None:
        """Take the segments below that number out of use: nothing of them is needed. Later ones are used again."""
        while self.numbers and self.numbers[0] < before and self.numbers[0] != self._write_number:
            number = self.numbers.pop(0)
            if number == self._read_number:
                self.stop_reading()
            self._spares.append(number)
        self.keep_spares(SPARES)

    def keep_spares(self, most: int) -> None:
        """Remove files that wait to be used again, all but `most`; those that cannot be removed wait on."""
        while len(self._spares) > most:
            try:
                self._disk.remove(self._path(self._spares[-1]))
            except FileNotFoundError:
                pass
            except OSError:
                return
            self._spares.pop()

    def harden(self, number: int) -> None:
        """Put what a killed process may have left in the kernel's memory on the disk."""
        handle = self._disk.open(self._path(number), write=True)
        try:
            self._disk.sync(handle)
            self._disk.sync_folder(self.folder)
        finally:
            self._disk.close(handle)

    def stop_reading(self) -> None:
        """Give the handle of the segment that was read back."""
        if self._read_handle >= 0:
            self._disk.close(self._read_handle)
        self._read_number, self._read_handle = 0, -1

    def close(self) -> None:
        """Give all handles back."""
        self.stop_reading()
        self.abandon()

    def _have_folder(self) -> None:
        if not self._has_folder:
            make_folders(self._disk, self.folder)
            self._has_folder = True

    def _handle_of(self, number: int) -> int:
        if number != self._read_number or self._read_handle < 0:
            self.stop_reading()
            self._read_handle = self._disk.open(self._path(number))
            self._read_number = number
        return self._read_handle

    def _read_sector(self, handle: int, size: int, offset: int) -> bytes:
        try:
            return self._disk.read(handle, size, offset)
        except OSError:
            return bytes(size)

    def _give_up(self, number: int, handle: int) -> None:
        if handle >= 0:
            self._disk.close(handle)
        # Which of its names the file has is not known now, and what is half made must not take space.
        with contextlib.suppress(OSError):
            self._disk.remove(self._path(number))
        with contextlib.suppress(OSError):
            found = self._found()
            self._spares = [one for one in self._spares if one in found]

    def _found(self) -> list[int]:
        try:
            names = self._disk.names(self.folder)
        except FileNotFoundError:
            return []
        return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:016d}.seg"
