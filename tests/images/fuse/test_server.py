"""The server on a real mount: what another process sees, and that one failure concerns one request."""

import errno
import hashlib
import random
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import EdgeError, RefusedError
from edge.images.fuse import protocol
from edge.images.fuse.mount import is_mounted, mount, read_ahead, unmount
from edge.images.fuse.server import FuseServer
from tests.images.fuse.known_files import KnownFiles, pattern
from tests.images.fuse.mounted import PATIENCE_SECONDS, Mount, mounted, serving
from tests.support.images import ROOT

READ = "(lambda f: (os.lseek(f, {at}, 0), os.read(f, {size}))[1])(os.open(path + '/{name}', os.O_RDONLY))"
_READER = """
import os, sys
file = os.open(sys.argv[1] + "/" + sys.argv[2], os.O_RDONLY)
sys.stdout.buffer.write(os.read(file, 4096))
"""

_SETTING = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from edge.images.fuse.mount import read_ahead
read_ahead(Path(sys.argv[1]))
"""

_PATIENT_READER = "import signal; signal.signal(signal.SIGALRM, lambda *_: None)\n" + _READER


@pytest.fixture
def files() -> KnownFiles:
    made = KnownFiles()
    made.add("etc/hosts", b"127.0.0.1 localhost\n")
    made.add("etc/link", b"../usr/\xff", stat.S_IFLNK | 0o777)
    made.add("big", size=3_000_001)
    made.add("slow", b"s" * 4096)
    return made


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Mount]:
    with mounted(tmp_path) as made:
        yield made


@pytest.fixture
def server(one: Mount, files: KnownFiles) -> Iterator[FuseServer]:
    with serving(one, files) as made:
        yield made
        files.arrived.set()


def wait(files: KnownFiles) -> None:
    assert files.asked.acquire(timeout=PATIENCE_SECONDS)


# --- what is seen


@pytest.mark.usefixtures("server")
def test_find_sees_every_name(one: Mount) -> None:
    found = subprocess.run(
        ("find", one.path, "-printf", "%P %y\n"), capture_output=True, timeout=PATIENCE_SECONDS, check=True
    )
    assert sorted(found.stdout.decode().splitlines()) == [" d", "big f", "etc d", "etc/hosts f", "etc/link l", "slow f"]


@pytest.mark.usefixtures("server")
def test_attributes_are_those_of_the_file(one: Mount, files: KnownFiles) -> None:
    got = one.ask("tuple(os.stat(path + '/etc/hosts'))")
    number = files.nodes[files.nodes[protocol.ROOT].children[b"etc"]].children[b"hosts"]
    assert got[:2] == (stat.S_IFREG | 0o644, number)
    assert got[3:] == (1, 1000, 2000, 20, 1_700_000_000, 1_700_000_000, 1_700_000_000)
    assert one.ask("os.stat(path + '/etc/hosts').st_mtime_ns % 1000") == 2


@pytest.mark.usefixtures("server")
def test_a_link_leads_where_it_says(one: Mount) -> None:
    assert one.ask("os.fsencode(os.readlink(path + '/etc/link'))") == b"../usr/\xff"


@pytest.mark.usefixtures("server")
def test_reads_at_any_place_give_what_is_there(one: Mount) -> None:
    chooser = random.Random(1)
    places = [(0, 1), (2_999_999, 100), (3_000_001, 10), (4095, 2), (1 << 20, 1 << 20)]
    places += [(chooser.randrange(3_000_001), chooser.randrange(70_000)) for _ in range(40)]
    got = one.ask(f"[__import__('hashlib').sha256(os.pread(os.open(path + '/big', 0), s, a)).hexdigest() for a, s in {places}]")  # fmt: skip  # noqa: E501
    whole = pattern(0, 3_000_001)
    assert got == [hashlib.sha256(whole[at : at + size]).hexdigest() for at, size in places]


@pytest.mark.usefixtures("server")
def test_a_mapped_file_is_the_file(one: Mount) -> None:
    got = one.ask("__import__('mmap').mmap(os.open(path + '/big', 0), 0, prot=1)[2_999_990:]")
    assert got == pattern(2_999_990, 11)


@pytest.mark.usefixtures("server")
def test_extended_attributes_are_listed_and_read(one: Mount, files: KnownFiles) -> None:
    files.add("x", b"x").xattrs |= {b"user.a": b"\x00\xff", b"user.long": b"v" * 5000, b"user.empty": b""}
    assert sorted(one.ask("os.listxattr(path + '/x')")) == ["user.a", "user.empty", "user.long"]
    assert one.ask("os.getxattr(path + '/x', 'user.a')") == b"\x00\xff"
    assert one.ask("os.getxattr(path + '/x', 'user.long')") == b"v" * 5000
    assert one.ask("os.getxattr(path + '/x', 'user.empty')") == b""
    assert one.ask("os.getxattr(path + '/x', 'user.none')") == "ENODATA"
    assert one.ask("os.listxattr(path + '/big')") == []


@pytest.mark.usefixtures("server")
def test_a_directory_of_3000_entries_is_listed_once_each(one: Mount, files: KnownFiles) -> None:
    names = [f"{number:04d}-{'x' * (number % 200)}" for number in range(3000)]
    for name in names:
        files.add(f"many/{name}", name.encode())
    assert sorted(one.ask("os.listdir(path + '/many')")) == names
    sizes = one.ask("sorted((e.name, e.stat().st_size) for e in os.scandir(path + '/many'))")
    assert sizes == [(name, len(name)) for name in names]


@pytest.mark.usefixtures("server")
def test_a_listing_says_the_types(one: Mount) -> None:
    got = one.ask("{e.name: (e.is_file(), e.is_symlink()) for e in os.scandir(path + '/etc')}")
    assert got == {"hosts": (True, False), "link": (False, True)}


@pytest.mark.usefixtures("server")
def test_statfs_answers(one: Mount) -> None:
    assert one.ask("(lambda s: (s.f_bsize, s.f_namemax, s.f_bfree))(os.statvfs(path))") == (4096, 255, 0)


@pytest.mark.usefixtures("server")
def test_nothing_can_be_written(one: Mount) -> None:
    assert one.ask("os.open(path + '/etc/hosts', os.O_WRONLY)") == "EROFS"
    assert one.ask("os.mkdir(path + '/new')") == "EROFS"


@pytest.mark.usefixtures("server")
def test_what_is_not_there_is_not_there(one: Mount) -> None:
    assert one.ask("os.stat(path + '/none')") == "ENOENT"
    assert one.ask("os.stat(path + '/etc/hosts/none')") == "ENOTDIR"


@pytest.mark.usefixtures("server")
def test_permissions_are_the_kernels_to_check(one: Mount, files: KnownFiles) -> None:
    files.add("secret", b"s", stat.S_IFREG | 0o600)
    assert one.ask("(os.setuid(65534), os.open(path + '/secret', 0))") == "EACCES"


# --- failures


@pytest.mark.usefixtures("server")
def test_a_removed_node_is_stale_and_the_others_go_on(one: Mount, files: KnownFiles) -> None:
    gone = files.add("gone", size=100_000)
    assert one.ask("os.stat(path + '/gone').st_size") == 100_000
    del files.nodes[gone.number]
    assert one.ask(READ.format(name="gone", at=0, size=10)) in {"ESTALE", "EIO"}
    assert one.ask(READ.format(name="etc/hosts", at=0, size=9)) == b"127.0.0.1"


@pytest.mark.parametrize("error", [EdgeError("the registry is away"), ValueError("a defect")])
@pytest.mark.usefixtures("server")
def test_content_that_cannot_be_had_is_an_io_error_of_its_reader_alone(
    one: Mount, files: KnownFiles, error: Exception
) -> None:
    node = files.add("bad", b"b" * 5000).number
    files.failing[node] = [error] * 10
    assert one.ask(READ.format(name="bad", at=0, size=10)) == "EIO"
    assert one.ask(READ.format(name="slow", at=0, size=3)) == b"sss"
    del files.failing[node]
    assert one.ask(READ.format(name="bad", at=0, size=3)) == b"bbb"


@pytest.mark.usefixtures("server")
def test_others_are_answered_while_a_reader_waits(one: Mount, files: KnownFiles) -> None:
    node = files.add("late", b"l" * 4096).number
    files.waiting.add(node)
    reader = one.start(_READER, "late")
    wait(files)
    assert one.ask(READ.format(name="etc/hosts", at=10, size=9)) == b"localhost"
    assert reader.poll() is None
    files.arrived.set()
    assert reader.communicate(timeout=PATIENCE_SECONDS)[0] == b"l" * 4096


@pytest.mark.usefixtures("server")
def test_a_killed_reader_ends_at_once_and_leaves_the_file_readable(one: Mount, files: KnownFiles) -> None:
    files.waiting.add(files.add("late", b"l" * 4096).number)
    reader = one.start(_READER, "late")
    wait(files)
    reader.kill()
    assert reader.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    files.arrived.set()
    assert one.ask(READ.format(name="late", at=4000, size=200)) == b"l" * 96


@pytest.mark.parametrize("signalled_before", [False, True])
@pytest.mark.usefixtures("server")
def test_a_killed_reader_ends_after_a_failure_too(one: Mount, files: KnownFiles, *, signalled_before: bool) -> None:
    """After a read ahead that failed, the kernel asks for the page in a way that waits for the answer."""
    node = files.add("late", b"l" * 4096).number
    files.waiting.add(node)
    files.failing[node] = [EdgeError("the registry is away")]
    reader = one.start(_PATIENT_READER, "late")
    wait(files)
    wait(files)
    if signalled_before:
        reader.send_signal(signal.SIGALRM)
        assert one.ask(READ.format(name="etc/hosts", at=10, size=9)) == b"localhost"
    reader.kill()
    assert reader.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    files.arrived.set()
    assert one.ask(READ.format(name="late", at=4000, size=200)) == b"l" * 96


@pytest.mark.usefixtures("server")
def test_a_signal_that_does_not_kill_does_not_disturb_a_read(one: Mount, files: KnownFiles) -> None:
    node = files.add("late", b"l" * 4096).number
    files.waiting.add(node)
    files.failing[node] = [EdgeError("the registry is away")]
    reader = one.start(_PATIENT_READER, "late")
    wait(files)
    wait(files)
    reader.send_signal(signal.SIGALRM)
    assert one.ask(READ.format(name="etc/hosts", at=10, size=9)) == b"localhost"
    files.arrived.set()
    assert reader.communicate(timeout=PATIENCE_SECONDS)[0] == b"l" * 4096


# --- what changes


@pytest.mark.usefixtures("server")
def test_of_what_lasts_the_kernel_asks_once(one: Mount, files: KnownFiles) -> None:
    assert one.ask("os.stat(path + '/new')") == "ENOENT"
    files.add("new", b"n")
    assert one.ask("os.stat(path + '/new')") == "ENOENT"


@pytest.mark.usefixtures("server")
def test_a_new_name_in_a_folder_that_does_not_last_is_seen_at_once(one: Mount, files: KnownFiles) -> None:
    files.changing.add(protocol.ROOT)
    assert one.ask("os.stat(path + '/new')") == "ENOENT"
    files.add("new", b"n")
    assert one.ask("os.stat(path + '/new').st_size") == 1
    del files.nodes[protocol.ROOT].children[b"new"]
    assert one.ask("os.stat(path + '/new')") == "ENOENT"


@pytest.mark.usefixtures("server")
def test_a_listing_of_a_folder_that_does_not_last_is_always_the_newest(one: Mount, files: KnownFiles) -> None:
    files.changing.add(protocol.ROOT)
    assert sorted(one.ask("os.listdir(path)")) == ["big", "etc", "slow"]
    files.add("new", b"n")
    assert sorted(one.ask("os.listdir(path)")) == ["big", "etc", "new", "slow"]
    del files.nodes[protocol.ROOT].children[b"new"]
    assert sorted(one.ask("os.listdir(path)")) == ["big", "etc", "slow"]


@pytest.mark.usefixtures("server")
def test_a_name_that_leads_elsewhere_is_followed_at_once(one: Mount, files: KnownFiles) -> None:
    files.changing.add(files.nodes[protocol.ROOT].children[b"etc"])
    assert one.ask("os.stat(path + '/etc/hosts').st_size") == 20
    files.add("etc/hosts", b"elsewhere", stat.S_IFLNK | 0o777)
    assert one.ask("os.readlink(path + '/etc/hosts')") == "elsewhere"


# --- the mount


def test_the_server_ends_when_the_mount_is_gone(one: Mount, files: KnownFiles) -> None:
    with serving(one, files):
        assert is_mounted(one.path)
        unmount(one.path)
        assert not is_mounted(one.path)


def test_a_stopped_server_leaves_the_mount_to_the_next(one: Mount, files: KnownFiles) -> None:
    with serving(one, files) as first:
        assert one.ask("os.stat(path + '/big').st_size") == 3_000_001
        session = first._session
    assert is_mounted(one.path)
    files.add("new", b"n")
    with serving(one, files, session):
        assert one.ask(READ.format(name="new", at=0, size=3)) == b"n"


def test_where_the_kernel_does_not_ask_again_a_stopping_server_answers_what_it_has_taken(
    one: Mount, files: KnownFiles
) -> None:
    files.waiting.add(files.add("late", b"l" * 4096).number)
    files.add("before", b"b")
    with serving(one, files) as first:
        # The kernel asks once whether open and flush mean anything here; nobody would be there to answer later.
        assert one.ask(READ.format(name="before", at=0, size=1)) == b"b"
        assert one.ask("os.stat(path + '/late').st_size") == 4096
        session = first._session
    assert session is not None
    with serving(one, files, replace(session, resend=False)) as second:
        reader = one.start(_READER, "late")
        wait(files)
        second.stop()
        files.arrived.set()
    assert reader.communicate(timeout=PATIENCE_SECONDS)[0] == b"l" * 4096


@pytest.mark.usefixtures("server")
def test_read_ahead_is_a_mebibyte(one: Mount) -> None:
    read_ahead(one.path)
    assert Path(f"/sys/class/bdi/0:{one._device}/read_ahead_kb").read_text() == "1024\n"


def test_to_set_read_ahead_needs_no_answer_from_the_mount(one: Mount) -> None:
    code = "from edge.images.fuse.mount import read_ahead; read_ahead(Path(path))"
    setting = one.start(
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; path = sys.argv[1]; {code}"
    )
    assert setting.wait(PATIENCE_SECONDS) == 0, "nobody serves, and it does not wait"


def test_a_mount_is_known_through_a_symbolic_link_and_with_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "a b\\040\n"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    with mounted(folder) as one, serving(one, KnownFiles()):
        assert is_mounted(one.path)
        assert is_mounted(tmp_path / "link" / "mnt")
        assert not is_mounted(folder)


def test_a_mount_that_is_refused_says_whose_right_is_missing(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from edge.errors import {RefusedError.__name__}, StoreError
from edge.images.fuse.mount import mount
os.setuid(65534)
try:
    mount(Path({str(tmp_path)!r}), "x")
except ({RefusedError.__name__}, StoreError) as error:
    print(error.hint)
"""
    done = subprocess.run(("python3", "-c", code), capture_output=True, text=True, timeout=30, check=True)
    assert "root" in done.stdout or "modprobe" in done.stdout


def test_to_unmount_what_is_not_mounted_is_no_error(tmp_path: Path) -> None:
    unmount(tmp_path)
    unmount(tmp_path / "none")


def test_a_file_is_no_place_to_mount(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeError, match=errno.errorcode[errno.ENOTDIR] + "|Not a directory|cannot mount"):
        mount(tmp_path / "file", "x")
