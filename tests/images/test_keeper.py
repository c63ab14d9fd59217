"""Whoever keeps the mount's descriptor while no service lives: a process that sleeps, or the service manager."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import StoreError
from edge.fd_store import FdStore
from edge.images import keeper

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fuse() -> Iterator[int]:
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    yield descriptor
    os.close(descriptor)


def _pid(record: Path) -> int:
    return int(json.loads(record.read_bytes())["pid"])


def _lives(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def test_a_descriptor_comes_back_from_the_process_that_keeps_it(tmp_path: Path, fuse: int) -> None:
    record = tmp_path / "keeper.json"
    keeper.keep(fuse, record, os.environ)
    pid = _pid(record)
    name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert name.startswith(f"edge-images keeps {tmp_path}")
    found = keeper.kept(record, os.environ)
    assert found is not None
    assert os.fstat(found).st_rdev == os.fstat(fuse).st_rdev
    assert not os.get_inheritable(found)
    os.close(found)
    keeper.release(record, os.environ)
    assert not record.exists()
    deadline = time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert keeper.kept(record, os.environ) is None


def test_a_keeper_that_was_killed_keeps_nothing(tmp_path: Path, fuse: int) -> None:
    record = tmp_path / "keeper.json"
    keeper.keep(fuse, record, os.environ)
    os.kill(_pid(record), signal.SIGKILL)
    os.waitpid(_pid(record), 0)
    assert keeper.kept(record, os.environ) is None
    keeper.release(record, os.environ)


def test_another_process_with_its_number_is_not_taken_for_it(tmp_path: Path) -> None:
    record = tmp_path / "keeper.json"
    record.write_text(json.dumps({"pid": os.getpid(), "started": 1, "descriptor": 0}))
    assert keeper.kept(record, os.environ) is None
    keeper.release(record, os.environ)
    assert not record.exists(), "and nobody was killed"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "started": 0}'])
def test_a_damaged_record_is_as_none(tmp_path: Path, text: str) -> None:
    record = tmp_path / "keeper.json"
    record.write_text(text)
    assert keeper.kept(record, os.environ) is None


def test_a_service_manager_keeps_it_and_gives_it_at_the_next_start(tmp_path: Path, fuse: int) -> None:
    record, store = tmp_path / "keeper.json", FdStore(tmp_path / "notify")
    environment = {**os.environ, "NOTIFY_SOCKET": str(store.path)}
    try:
        keeper.keep(fuse, record, environment)
        store.receive()
        [(name, kept)] = store.descriptors()
        assert not record.exists(), "no process is needed"
        code = (
            "import os, pathlib; from edge.images import keeper;"
            "found = keeper.kept(pathlib.Path('none'), os.environ);"
            "print(found, found is not None and os.get_inheritable(found))"
        )
        shell = f'LISTEN_PID=$$ exec "{sys.executable}" -c "{code}" 3<&{kept}'
        told = subprocess.run(
            ("bash", "-c", shell), env={**environment, "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}, cwd=ROOT,
            pass_fds=(kept,), capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert told.split() == ["3", "False"]
        keeper.release(record, environment)
        store.receive()
        assert store.descriptors() == ()
    finally:
        store.close()


def test_a_service_manager_that_does_not_listen_is_an_error(tmp_path: Path, fuse: int) -> None:
    with pytest.raises(StoreError, match="does not keep descriptors"):
        keeper.keep(fuse, tmp_path / "keeper.json", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
