"""A server that is killed in the middle of reads is not noticed by who reads: the next one takes the mount over."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.images.fuse.mount import is_mounted
from edge.images.fuse.server import Session
from tests.images.fuse.mounted import PATIENCE_SECONDS, Mount, mounted
from tests.images.fuse.serve_known import NAMES, SIZE

ROOT = Path(__file__).resolve().parents[3]
KILLS = 5
_READER = f"""
import os, random, sys
path, seed = sys.argv[1], int(sys.argv[2])
chooser = random.Random(seed)
big = os.open(path + "/big", os.O_RDONLY)
done = 0
while not os.path.exists(sys.argv[3]):
    at, size = chooser.randrange({SIZE}) & ~7, 8 * chooser.randrange(1, 20_000)
    os.posix_fadvise(big, 0, 0, os.POSIX_FADV_DONTNEED)
    data = os.pread(big, size, at)
    wanted = b"".join(number.to_bytes(8, "little") for number in range(at // 8, min(at + size, {SIZE}) // 8))
    assert data == wanted, (at, size, len(data))
    name = chooser.randrange({NAMES})
    assert os.stat(f"{{path}}/many/{{name}}").st_size == name + 1
    assert not os.path.exists(f"{{path}}/many/{{chooser.random()}}")
    if chooser.randrange(50) == 0:
        assert len(os.listdir(path + "/many")) == {NAMES}
    done += 1
    with open(sys.argv[4], "w") as file:
        file.write(str(done))
print("right")
"""


class Server:
    """A process that serves; the descriptor stays with the test."""

    def __init__(self, one: Mount, session: Path) -> None:
        command = (sys.executable, "-m", "tests.images.fuse.serve_known", str(one.descriptor), str(session))
        self._process = subprocess.Popen(command, pass_fds=(one.descriptor,), cwd=ROOT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def needs_resend(session: Path) -> None:
    release = tuple(map(int, os.uname().release.split(".")[:2]))
    if release < (6, 9):
        pytest.skip("Linux before 6.9 does not ask again what a dead server left open")
    assert Session.from_json(session.read_bytes()).resend


def test_every_read_ends_with_the_right_bytes_whatever_server_it_began_with(tmp_path: Path) -> None:
    session, end = tmp_path / "session", tmp_path / "end"
    with mounted(tmp_path) as one:
        server = Server(one, session)
        try:
            wait_until(session.exists, "the session was not agreed on")
            needs_resend(session)
            counts = [tmp_path / f"count-{number}" for number in range(4)]
            readers = [one.start(_READER, str(number), str(end), str(path)) for number, path in enumerate(counts)]
            for _ in range(KILLS):
                before = [_count(path) for path in counts]
                wait_until(lambda: all(_count(p) > b for p, b in zip(counts, before, strict=True)), "a reader hangs")  # noqa: B023
                server.kill()
                server = Server(one, session)
            before = [_count(path) for path in counts]
            wait_until(lambda: all(_count(p) > b for p, b in zip(counts, before, strict=True)), "a reader hangs")
            end.touch()
            assert [reader.communicate(timeout=PATIENCE_SECONDS)[0] for reader in readers] == [b"right\n"] * 4
            assert is_mounted(one.path)
        finally:
            end.touch()
            one.abort()
            server.kill()


def test_a_read_that_begins_while_nobody_serves_waits_for_the_next_server(tmp_path: Path) -> None:
    session = tmp_path / "session"
    with mounted(tmp_path) as one:
        server = Server(one, session)
        try:
            wait_until(session.exists, "the session was not agreed on")
            assert one.ask("os.stat(path + '/big').st_size") == SIZE
            server.kill()
            reader = one.start("import os, sys; print(os.stat(sys.argv[1] + '/many/41').st_size)")
            wait_until(lambda: _waits(reader.pid), "the reader does not wait")
            server = Server(one, session)
            assert reader.communicate(timeout=PATIENCE_SECONDS)[0] == b"42\n"
        finally:
            one.abort()
            server.kill()


def _count(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


def _waits(pid: int) -> bool:
    """Whether the process waits for a FUSE answer."""
    return "fuse" in Path(f"/proc/{pid}/stack").read_text()
