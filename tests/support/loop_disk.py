"""A small ext4 of its own on a loop device, with the kernel's count of what was written to it."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
STAT_SECTOR = 512
"""The unit of `/sys/block/*/stat`, whatever the device's own is (Documentation/block/stat.rst)."""
SECTORS_WRITTEN = 6


@dataclass(frozen=True, slots=True)
class LoopDisk:
    """The mounted file system.

    Attributes:
        folder: Where it is mounted.
        device: `/dev/loopN`.
    """

    folder: Path
    device: Path

    def written(self) -> int:
        """Return how many bytes the device was given so far, everything that waits included."""
        self.commit()
        fields = Path(f"/sys/block/{self.device.name}/stat").read_text().split()
        return int(fields[SECTORS_WRITTEN]) * STAT_SECTOR

    def commit(self) -> None:
        """Write everything that waits, as the file system does by itself every five seconds."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if _LIBC.syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), "syncfs")
        finally:
            os.close(descriptor)


@contextmanager
def loop_disk(folder: Path, mebibytes: int) -> Iterator[LoopDisk]:
    """Make, mount, and remove it; as root. Everything is ext4's default."""
    image, mount = folder / "disk.img", folder / "disk"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
    device = _run("losetup", "--find", "--show", str(image))
    try:
        _run("mount", "-t", "ext4", device, str(mount))
        try:
            yield LoopDisk(mount, Path(device))
        finally:
            _run("umount", str(mount))
    finally:
        _run("losetup", "--detach", device)
        image.unlink()


def _run(*command: str) -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
