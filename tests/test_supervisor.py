"""The supervisor on real processes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.supervisor import Backoff

_PATIENCE_SECONDS = 20.0
_RUNNER = """
import os, sys, socket
from pathlib import Path
from edge.supervisor import Backoff, Child, Start, Supervisor
ENV = dict(os.environ)
def python(name, code, *args, **more):
    return Child(name, (sys.executable, "-c", code, *args), ENV, **more)
def log(line): print(line, flush=True)
def run(*children, backoff=Backoff(base_seconds=0.01, cap_seconds=0.05)):
    Supervisor(children, Path("run"), log, backoff=backoff).run(lambda: log("started"))
"""
_SLEEP = "import signal; print('up', flush=True); signal.pause()"


class Running:
    """A supervisor in a process of its own, and what it has written."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder = folder
        self.output = folder / "out"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUNNER + script],
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            )

    def text(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str, count: int = 1) -> list[str]:
        until(lambda: len(re.findall(pattern, self.text())) >= count, self.text)
        return re.findall(pattern, self.text())

    def pid_of(self, name: str, unlike: int = 0) -> int:
        path = self.folder / "run" / f"{name}.pid"
        until(lambda: path.exists() and int(path.read_text()) != unlike, self.text)
        return int(path.read_text())


def until(condition: Callable[[], bool], tell: Callable[[], str] = str) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {_PATIENCE_SECONDS} s in vain; {tell()}")
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


Start = Callable[[str], Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Running] = []

    def begin(script: str) -> Running:
        running.append(Running(tmp_path, script))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()


def test_a_killed_child_is_started_again(start: Start) -> None:
    supervisor = start(f"run(python('a', {_SLEEP!r}))")
    supervisor.wait_for(r"\[a\] up")
    first = supervisor.pid_of("a")
    os.kill(first, signal.SIGKILL)
    assert supervisor.pid_of("a", unlike=first) != first
    supervisor.wait_for(r"\[a\] up", count=2)
    assert "a was ended by SIGKILL" in supervisor.text()


def test_restart_delays_double_to_a_cap() -> None:
    backoff = Backoff(base_seconds=0.5, cap_seconds=30)
    assert [backoff.ceiling(n) for n in (1, 2, 3, 8, 5000)] == [0.5, 1, 2, 30, 30]


def test_a_program_that_is_not_there_is_told_and_tried_again(start: Start) -> None:
    supervisor = start("run(Child('a', ('/no/such/program',), ENV))")
    supervisor.wait_for(r"\[a\] cannot execute /no/such/program: No such file", count=3)


def test_a_pid_file_that_cannot_be_written_stops_nothing(start: Start) -> None:
    # A folder in the file's place, as a full disk would refuse the write.
    supervisor = start(f"Path('run/a.pid/x').mkdir(parents=True); run(python('a', {_SLEEP!r}))")
    supervisor.wait_for(r"cannot write run/a.pid")
    supervisor.wait_for(r"\[a\] up")
    supervisor.process.terminate()
    assert supervisor.process.wait(_PATIENCE_SECONDS) == 0


def test_a_child_that_cannot_be_forked_is_tried_again(start: Start) -> None:
    # A limit of processes binds only an unprivileged user.
    script = (
        "import resource\n"
        "os.mkdir('run'); os.chmod('.', 0o777); os.chmod('run', 0o777); os.setuid(65534)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n"
        f"run(python('a', {_SLEEP!r}))"
    )
    supervisor = start(script)
    supervisor.wait_for("a cannot be started: Resource temporarily unavailable", count=2)
    supervisor.process.terminate()
    assert supervisor.process.wait(_PATIENCE_SECONDS) == 0


def test_children_are_stopped_in_reverse_order(start: Start) -> None:
    code = (
        "import os,signal,sys\n"
        "def end(*_): os.write(1, b'ended\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True)\n"
        "while True: signal.pause()"
    )
    supervisor = start(f"run(python('a', {code!r}), python('b', {code!r}))")
    supervisor.wait_for(r"\] up", count=2)
    supervisor.process.terminate()
    assert supervisor.process.wait(_PATIENCE_SECONDS) == 0
    assert re.findall(r"\[(.)\] ended", supervisor.text()) == ["b", "a"]
    assert list((supervisor.folder / "run").iterdir()) == []


def test_a_child_that_does_not_stop_in_time_is_killed_alone(start: Start) -> None:
    code = (
        "import signal,subprocess,sys\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('left', left.pid, flush=True)\n"
        "while True: signal.pause()"
    )
    supervisor = start(f"run(python('a', {code!r}, stop_timeout_seconds=0.1))")
    left = int(supervisor.wait_for(r"left (\d+)")[0])
    child = supervisor.pid_of("a")
    supervisor.process.terminate()
    try:
        assert supervisor.process.wait(_PATIENCE_SECONDS) == 0
        assert not alive(child)
        assert alive(left), "what a child leaves behind is not the supervisor's to kill"
    finally:
        os.kill(left, signal.SIGKILL)


def test_children_end_with_a_killed_supervisor(start: Start) -> None:
    supervisor = start(f"run(python('a', {_SLEEP!r}))")
    supervisor.wait_for(r"\[a\] up")
    child = supervisor.pid_of("a")
    supervisor.process.kill()
    until(lambda: not alive(child))


def test_a_child_inherits_nothing_by_accident(start: Start) -> None:
    code = (
        "import os,signal\n"
        "open_now = sorted(int(n) for n in os.listdir('/proc/self/fd'))\n"
        "print('fds', open_now, os.readlink('/proc/self/fd/0'), os.getsid(0) == os.getpid(),"
        " {'LISTEN_FDS', 'NOTIFY_SOCKET'} & {*os.environ}, flush=True)\n"
        "signal.pause()"
    )
    script = f"leak = os.open('/etc/passwd', os.O_RDONLY); os.set_inheritable(leak, True)\nrun(python('a', {code!r}))"
    # 3 is the listing of /proc/self/fd itself.
    start(script).wait_for(re.escape("[a] fds [0, 1, 2, 3] /dev/null True set()"))


def test_sockets_are_passed_from_descriptor_3_on(start: Start) -> None:
    code = (
        "import os,socket,signal\n"
        "assert int(os.environ['LISTEN_PID']) == os.getpid() and os.environ['LISTEN_FDS'] == '2'\n"
        "names = os.environ['LISTEN_FDNAMES'].split(':')\n"
        "print(*[f'{n}={socket.socket(fileno=3 + i).getsockname()}' for i, n in enumerate(names)], flush=True)\n"
        "signal.pause()"
    )
    script = (
        "one, two = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)\n"
        "one.bind('one'); two.bind('two'); one.listen(); two.listen()\n"
        f"run(python('a', {code!r}, sockets=(('x', two.fileno()), ('y', one.fileno()))))"
    )
    start(script).wait_for(r"\[a\] x=two y=one")


def test_a_child_on_demand_starts_at_a_connection_and_again_at_the_next(start: Start) -> None:
    code = (
        "import socket,time\n"
        "s = socket.socket(fileno=3); c, _ = s.accept(); print('accepted', flush=True); c.sendall(b'hello'); c.recv(1)"
    )
    script = (
        "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()\n"
        f"run(python('a', {code!r}, start=Start.ON_DEMAND, sockets=(('s', s.fileno()),)))"
    )
    supervisor = start(script)
    supervisor.wait_for("started")
    assert not (supervisor.folder / "run" / "a.pid").exists()
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(supervisor.folder / "s"))
            assert client.recv(5) == b"hello"
        until(lambda: not (supervisor.folder / "run" / "a.pid").exists())
    assert supervisor.text().count("accepted") == 2


_KEEPER = """
import os, socket, signal
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
def notify(text, *fds):
    import socket as k, array
    s.sendmsg([text.encode()], [(k.SOL_SOCKET, k.SCM_RIGHTS, array.array('i', fds))] if fds else [])
s.connect(os.environ['NOTIFY_SOCKET'])
names = os.environ.get('LISTEN_FDNAMES', '')
print('got', names, flush=True)
"""


def test_a_stored_descriptor_comes_back_at_the_next_start(start: Start) -> None:
    code = _KEEPER + (
        "if names:\n"
        "    print('read', os.pread(3, 5, 0).decode(), flush=True); notify('FDSTOREREMOVE=1\\nFDNAME=kept')\n"
        "else:\n"
        "    fd = os.memfd_create('m'); os.write(fd, b'alive'); notify('FDSTORE=1\\nFDNAME=kept', fd)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    supervisor = start(f"run(python('a', {code!r}, fd_store=True))")
    supervisor.wait_for(r"\[a\] got ", count=4)
    assert re.findall(r"\[a\] (?:got|read) ?(.*)", supervisor.text())[:5] == ["", "kept", "alive", "", "kept"]


def test_a_bad_message_to_the_store_is_dropped(start: Start) -> None:
    code = _KEEPER + (
        "fd = os.memfd_create('m')\n"
        "for text in ('FDSTORE=1\\nFDNAME=a:b', '', '\\xff=\\n=\\n', 'FDSTORE=0'): notify(text, fd)\n"
        "notify('FDSTORE=1', fd)\n"
        "if names: signal.pause()"
    )
    assert start(f"run(python('a', {code!r}, fd_store=True))").wait_for(r"\[a\] got (.+)") == ["stored"]


def test_nothing_wakes_an_idle_supervisor(start: Start) -> None:
    supervisor = start(f"run(python('a', {_SLEEP!r}))")
    supervisor.wait_for(r"\[a\] up")

    def state() -> str:
        return Path(f"/proc/{supervisor.process.pid}/wchan").read_text()

    until(lambda: "poll" in state())
    # epoll_wait with no time-out: nothing but an event ends it.
    call = Path(f"/proc/{supervisor.process.pid}/syscall").read_text().split()
    assert int(call[4], 16) & 0xFFFFFFFF == 0xFFFFFFFF


def test_as_pid_1_it_reaps_orphans(tmp_path: Path) -> None:
    code = (
        "import os,signal,time\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0: signal.pause()\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "orphan = next(int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) > os.getpid())\n"
        "os.kill(orphan, 9)\n"
        "while os.path.exists(f'/proc/{orphan}'): time.sleep(0.01)\n"
        "print('reaped', flush=True); signal.pause()"
    )
    script = _RUNNER + f"run(python('a', {code!r}))"
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", script],
            cwd=tmp_path,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        )
    try:
        until(lambda: "[a] reaped" in out.read_text(), out.read_text)
    finally:
        process.kill()
        process.wait()
