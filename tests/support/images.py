"""The image service's mount, for tests: ended as an operator would, or by force, so that nothing hangs on it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 30.0
_CONNECTIONS = Path("/sys/fs/fuse/connections")


def unmount_images(state_dir: Path) -> None:
    """End the mount that an image service has left, as whoever takes a device out of use would."""
    if state_dir.is_dir():
        command = (sys.executable, "-m", "edge", "images", "serve", "--state-dir", str(state_dir), "--unmount")
        try:
            subprocess.run(command, check=True, timeout=PATIENCE_SECONDS, cwd=ROOT, capture_output=True)
        except BaseException:
            # Whoever looks at a mount that nobody answers for waits for ever, pytest's own cleaning too.
            force_unmount(state_dir)
            raise


def force_unmount(state_dir: Path) -> None:
    """End every request with an error, the mount, and the process that keeps it."""
    abort(state_dir)
    subprocess.run(("umount", "-l", str(state_dir / "store" / "overlay")), check=False, capture_output=True)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"edge-images keeps " + os.fsencode(state_dir)):
                os.kill(int(path.parent.name), signal.SIGKILL)


def abort(state_dir: Path) -> None:
    """End every request of the mount with an error (linux/Documentation/filesystems/fuse.rst)."""
    device = _device(state_dir / "store" / "overlay")
    if not device:
        return
    if not (_CONNECTIONS / device).exists():
        subprocess.run(("mount", "-t", "fusectl", "none", _CONNECTIONS), check=False, capture_output=True)
    with suppress(OSError):
        (_CONNECTIONS / device / "abort").write_text("1")


def _device(path: Path) -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == str(path):
            return fields[2].partition(":")[2]
    return ""
