"""The agent's state file and power cuts: SQLite's real calls, seen by strace, replayed with what a cut may leave.

SQLite's shared memory (`-shm`) is not looked at: it is never synced, and whoever opens the file first makes it anew.
"""

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.agent.store.state import Change, StateStore
from tests.support.crash_disk import Aftermath, CrashDisk, Operation

COMMITS = 40
_CALLS = "openat,mkdir,write,pwrite64,ftruncate,fsync,fdatasync,unlink,rename"
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+)(.*)$")
_FD = re.compile(r"^(?:\d+|AT_FDCWD)<([^>]*)>")
_STRING = re.compile(r'"([^"]*)"')


@dataclass(slots=True)
class Trace:
    """What the child did to its folder.

    Attributes:
        returned: After how many calls each commit had returned.
    """

    folder: Path
    operations: list[Operation] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)

    def commits_at(self, cut: int) -> int:
        """How many commits had returned by then."""
        return sum(1 for at in self.returned if at <= cut)


def change_of(number: int) -> Change:
    """The change of commit `number`, from 1: some of everything, and what must stay together says its number."""
    change = Change(meta={"n": b"%d" % number, "copy": b"%d" % number, "noise": random.Random(number).randbytes(600)})
    change.events = [("topic", json.dumps({"n": number, "x": "y" * 500}).encode())]
    if number > 3:
        change.delivered = [number - 3]
    return change


def child(path: Path, commits: int) -> None:
    """Run under strace: commit after commit, each told to standard output when it returned."""
    store = StateStore(path)
    # A checkpoint every few commits instead of every few hundred.
    store._connection.execute("PRAGMA wal_autocheckpoint=20")
    sys.stdout.write("opened\n")
    sys.stdout.flush()
    for number in range(1, commits + 1):
        store.commit(change_of(number))
        sys.stdout.write(f"commit {number}\n")
        sys.stdout.flush()


def record(folder: Path, commits: int = COMMITS) -> Trace:
    """Run the child on `folder`/state/state.db and return what it did."""
    log = folder / "strace"
    database = folder / "root" / "state" / "state.db"
    database.parent.parent.mkdir()
    program = (
        "import sys; from pathlib import Path; from tests.support.state_crash import child; "
        "child(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    command = ["strace", "-f", "-y", "-xx", "-s", "100000", "-e", f"trace={_CALLS}", "-o", str(log)]
    subprocess.run(
        [*command, sys.executable, "-c", program, str(database), str(commits)],
        check=True, stdout=subprocess.PIPE, cwd=Path.cwd(),
    )  # fmt: skip
    trace = Trace(folder / "root")
    inodes: dict[str, int] = {}
    for line in log.read_text().splitlines():
        _read_line(line, trace, inodes)
    assert len(trace.returned) == commits
    return trace


def _read_line(line: str, trace: Trace, inodes: dict[str, int]) -> None:
    match = _LINE.match(line)
    if match is None or int(match[3]) < 0:
        return
    call, arguments = match[1], match[2]
    strings = [_unescaped(text) for text in _STRING.findall(arguments)]
    found = _FD.match(arguments)
    path = _unescaped(found[1]).decode() if found else ""
    if call in {"openat", "mkdir", "unlink", "rename"}:
        path = strings[0].decode()
    if call == "write" and strings[0].startswith(b"commit "):
        trace.returned.append(len(trace.operations))
    if not f"{path}/".startswith(f"{trace.folder}/") or path.endswith("-shm"):
        return
    trace.operations.extend(_operations(call, arguments, path, strings, inodes))


def _operations(
    call: str, arguments: str, path: str, strings: list[bytes], inodes: dict[str, int]
) -> Iterator[Operation]:
    """Yield what a call did to the folder."""
    match call:
        case "openat":
            if "O_CREAT" in arguments and path not in inodes:
                inodes[path] = len(inodes) + 1
                yield "create", path, inodes[path]
        case "mkdir":
            yield "mkdir", path
        case "pwrite64":
            *_, size, offset = arguments.split(", ")
            assert len(strings[0]) == int(size), "the trace was cut short"
            yield "write", inodes[path], int(offset, 0), strings[0]
        case "ftruncate":
            yield "truncate", inodes[path], int(arguments.split(", ")[1])
        case "fsync" | "fdatasync":
            yield ("sync", inodes[path]) if path in inodes else ("sync_folder", path)
        case "unlink":
            inodes.pop(path)
            yield "remove", path
        case _:
            raise AssertionError((call, arguments))


def _unescaped(text: str) -> bytes:
    """Undo strace's `-xx`: every byte as \\xNN."""
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def explore(trace: Trace, chance: random.Random, images: int, lies: frozenset[str] = frozenset()) -> Iterator[None]:
    """Look at what may be left after each call; yields once for each that was."""
    after = Aftermath({}, {}, {"/", str(trace.folder)}, lies=lies)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        for cut, operation in enumerate(trace.operations, 1):
            after.apply(operation)
            for number, disk in enumerate(after.disks(chance, images)):
                _check(disk, trace, cut, Path(name) / "root", f"call {cut} {operation[:2]}, disk {number}")
                yield


def _check(disk: CrashDisk, trace: Trace, cut: int, folder: Path, where: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for left in sorted(disk.folders):
        if left.startswith(f"{trace.folder}"):
            (folder / Path(left).relative_to(trace.folder)).mkdir(parents=True, exist_ok=True)
    for path, inode in disk.names_of.items():
        (folder / Path(path).relative_to(trace.folder)).write_bytes(disk.files[inode])
    store = StateStore(folder / "state" / "state.db")
    try:
        least = trace.commits_at(cut)
        found = int(store.meta("n") or b"0")
        assert least <= found <= least + 1, f"{where}: commit {found} is there, and {least} had returned"
        assert store.set_aside is None or not least, f"{where}: the file was put aside"
        if found:
            wanted = change_of(found).meta
            assert {key: store.meta(key) for key in wanted} == wanted, f"{where}: half of commit {found}"
            events = [json.loads(event.payload)["n"] for event in store.events(0, 100)]
            assert events == list(range(max(1, found - 2), found + 1)), f"{where}: events {events} at commit {found}"
        store.commit(Change(meta={"after": b"1"}))
    finally:
        store.close()
