"""A FUSE mount that can never hang the tests: other processes look into it, and a watchdog aborts it."""

import ast
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edge.images.fuse.filesystem import FileSystem
from edge.images.fuse.mount import mount, unmount
from edge.images.fuse.server import FuseServer, Session

WATCHDOG_SECONDS = 60.0
PATIENCE_SECONDS = 30.0

_ASK = """
import errno, os, stat, sys
path = sys.argv[1]
try:
    result = eval(sys.argv[2])
except OSError as error:
    result = errno.errorcode[error.errno]
sys.stdout.write(repr(result))
"""


class Mount:
    """A mount in a temporary folder, and the descriptor it is answered on."""

    def __init__(self, path: Path, descriptor: int, control: Path) -> None:
        self.path = path
        self.descriptor = descriptor
        self._control = control
        self._device = _device(path)
        self._children: list[subprocess.Popen[bytes]] = []

    def ask(self, expression: str) -> Any:
        """Evaluate a Python expression in another process, where `path` is the mount's; an OSError becomes its name."""
        output, _ = self.start(_ASK, expression).communicate(timeout=PATIENCE_SECONDS)
        return ast.literal_eval(output.decode())

    def start(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a process that may look into the mount."""
        command = (sys.executable, "-I", "-S", "-c", code, str(self.path), *arguments)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self._children.append(child)
        return child

    def abort(self) -> None:
        """End every request with an error, now and for ever; linux/Documentation/filesystems/fuse.rst."""
        connection = self._control / str(self._device) / "abort"
        if connection.exists():
            connection.write_text("1")

    def end(self) -> None:
        for child in self._children:
            child.kill()
        unmount(self.path)
        self.abort()
        os.close(self.descriptor)
        for child in self._children:
            child.communicate()


@contextmanager
def mounted(folder: Path) -> Iterator[Mount]:
    """Mount without a server."""
    path, control = folder / "mnt", folder / "control"
    path.mkdir()
    control.mkdir()
    subprocess.run(("mount", "-t", "fusectl", "none", control), check=True)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ("umount", "-l", control), check=True)
        descriptor = mount(path, "edge-test")
        stack.callback(unmount, path)
        one = Mount(path, descriptor, control)
        stack.callback(one.end)
        watchdog = threading.Timer(WATCHDOG_SECONDS, one.abort)
        watchdog.daemon = True
        watchdog.start()
        stack.callback(watchdog.cancel)
        yield one


@contextmanager
def serving(one: Mount, files: FileSystem, session: Session | None = None) -> Iterator[FuseServer]:
    """Answer in a thread of this process, until the block ends."""
    server = FuseServer(one.descriptor, files, session)
    thread = threading.Thread(target=server.serve, name="fuse")
    thread.start()
    try:
        assert server.ready.wait(PATIENCE_SECONDS)
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive(), "the server does not stop"


def _device(path: Path) -> int:
    """The mount's minor number, which is its connection's, without a look into it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4].encode().decode("unicode_escape") == str(path):
            return int(fields[2].partition(":")[2])
    raise AssertionError(f"{path} is not mounted")
