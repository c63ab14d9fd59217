"""Keep a few programs running on a host without systemd: restart, stop in order, sockets and descriptors kept.

One thread, one selector, asleep until something happens: a child's pidfd, its output, its notify socket, a signal.
Children die with this process (parent-death signal), because a supervisor started anew could not tell a left-over
child from its own; what children themselves leave running, such as containers under conmon, is never touched.
Orphans are reaped only as PID 1, where nobody else does it.
"""

import os
import random
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pathlib import Path

from edge.fd_store import FdStore
from edge.spawn import spawn

_MAX_LINE = 16 * 1024
_READ_SIZE = 64 * 1024


class Start(Enum):
    """When a child runs."""

    ALWAYS = "always"
    """From the beginning; started again whenever it ends."""
    ON_DEMAND = "on-demand"
    """When one of its sockets has a connection waiting; one that ends in order stays away until the next."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between restarts: full jitter under a ceiling that doubles; see "Exponential Backoff And Jitter" (AWS).

    Attributes:
        base_seconds: The first ceiling.
        cap_seconds: The last.
        held_seconds: A child that ran this long begins at the first ceiling again.
    """

    base_seconds: float = 0.25
    cap_seconds: float = 30.0
    held_seconds: float = 30.0

    def ceiling(self, failures: int) -> float:
        """Return the longest delay after so many failures in a row, 1 or more."""
        return min(self.cap_seconds, self.base_seconds * 2.0 ** min(failures - 1, 60))


@dataclass(frozen=True, slots=True)
class Child:
    """One program to keep running.

    Attributes:
        name: Prefix of its log lines and stem of its `<name>.pid`; letters, digits, `-`.
        argv: The program and its arguments.
        env: Its whole environment; the supervisor adds `LISTEN_*` and, with `fd_store`, `NOTIFY_SOCKET`.
        start: When it runs.
        sockets: `(name, descriptor)` pairs it is given, listening; they stay open here between its lives.
        stop_signal: What asks it to end. Sent to it alone, not to its group.
        stop_timeout_seconds: After this it gets SIGKILL.
        fd_store: It may keep descriptors here. Not for Podman, which hands `NOTIFY_SOCKET` on to containers.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    start: Start = Start.ALWAYS
    sockets: tuple[tuple[str, int], ...] = ()
    stop_signal: int = signal.SIGTERM
    stop_timeout_seconds: float = 10.0
    fd_store: bool = False


@dataclass(slots=True)
class _Life:
    """What is known of one child; `pid` 0 while it does not run."""

    child: Child
    store: FdStore | None
    output_read: int
    output_write: int
    """Kept open here too: what a child leaves behind (conmon) may hold the pipe, so its end says nothing."""
    pid: int = 0
    pidfd: int = -1
    started_at: float = 0.0
    failures: int = 0
    start_at: float | None = None
    kill_at: float | None = None
    waiting: bool = False
    """For a connection on one of its sockets."""
    asked_to_stop: bool = False
    partial: bytearray = field(default_factory=bytearray)


class Supervisor:
    """Runs children until SIGTERM or SIGINT, then stops them in reverse order.

    Args:
        children: In the order they are started.
        run_dir: Where `<name>.pid` and `<name>.notify` are; made with mode 0700. Nothing else may use it.
        log: Gets each line, the children's prefixed with `[name] `.
    """

    def __init__(
        self, children: Sequence[Child], run_dir: Path, log: Callable[[str], None], *, backoff: Backoff | None = None
    ) -> None:
        self._log = log
        self._backoff = backoff or Backoff()
        self._run_dir = run_dir
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._children = tuple(children)
        self._lives: list[_Life] = []

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Start everything, call `started`, and return when a signal came and every child has ended.

        Must be called in the main thread.
        """
        self._run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _signals_as_readable(self._selector, self._signalled):
            try:
                self._lives = [self._prepare(child) for child in self._children]
                for life in self._lives:
                    self._begin(life)
                started()
                while not (self._stopping and self._stop_next()):
                    self._turn()
            finally:
                self._close()

    def _prepare(self, child: Child) -> _Life:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write, True)
        store = FdStore(self._run_dir / f"{child.name}.notify") if child.fd_store else None
        life = _Life(child, store, read, write)
        self._selector.register(read, selectors.EVENT_READ, partial(self._read_output, life))
        if store:
            self._selector.register(store.fileno(), selectors.EVENT_READ, store.receive)
        return life

    def _begin(self, life: _Life) -> None:
        if life.child.start is Start.ALWAYS:
            self._spawn(life)
        else:
            self._await_demand(life, waiting=True)

    def _await_demand(self, life: _Life, *, waiting: bool) -> None:
        if waiting == life.waiting:
            return
        life.waiting = waiting
        for _, descriptor in life.child.sockets:
            if waiting:
                self._selector.register(descriptor, selectors.EVENT_READ, partial(self._demanded, life))
            else:
                self._selector.unregister(descriptor)

    def _demanded(self, life: _Life) -> None:
        if life.waiting:  # Two of its sockets may become readable in one turn.
            self._await_demand(life, waiting=False)
            self._spawn(life)

    def _spawn(self, life: _Life) -> None:
        child = life.child
        passed, env = child.sockets, child.env
        if life.store:
            passed, env = (*passed, *life.store.descriptors()), {**env, "NOTIFY_SOCKET": str(life.store.path)}
        life.started_at = time.monotonic()
        try:
            life.pid = spawn(child.argv, env, life.output_write, passed)
        except OSError as error:  # No memory, or too many processes, now.
            self._plan_restart(life, f"cannot be started: {error.strerror}")
            return
        life.pidfd = os.pidfd_open(life.pid)
        self._selector.register(life.pidfd, selectors.EVENT_READ, partial(self._exited, life))
        self._write_pid(life)

    def _write_pid(self, life: _Life) -> None:
        path = self._run_dir / f"{life.child.name}.pid"
        temporary = path.with_suffix(".new")
        try:
            temporary.write_text(f"{life.pid}\n", encoding="ascii")
            temporary.replace(path)
        except OSError as error:  # A full disk is no reason to stop: the file is for people and tests.
            self._log(f"cannot write {path}: {error.strerror}")

    def _exited(self, life: _Life) -> None:
        if not life.pid:
            return
        _, status = os.waitpid(life.pid, 0)
        self._selector.unregister(life.pidfd)
        os.close(life.pidfd)
        life.pid, life.kill_at = 0, None
        with suppress(OSError):
            (self._run_dir / f"{life.child.name}.pid").unlink()
        if life.store:  # What it stored with its last breath belongs to its next life.
            life.store.receive()
        self._read_output(life)
        if self._stopping:
            return
        ran = time.monotonic() - life.started_at
        if life.child.start is Start.ON_DEMAND and status == 0 and ran > self._backoff.base_seconds:
            life.failures = 0
            self._await_demand(life, waiting=True)
        else:
            self._plan_restart(life, _ending(os.waitstatus_to_exitcode(status)))

    def _plan_restart(self, life: _Life, why: str) -> None:
        ran = time.monotonic() - life.started_at
        life.failures = 1 if ran >= self._backoff.held_seconds else life.failures + 1
        delay = random.uniform(0, self._backoff.ceiling(life.failures))  # noqa: S311 - jitter, not a secret
        life.start_at = time.monotonic() + delay
        self._log(f"{life.child.name} {why} after {ran:.1f} s; again in {delay:.1f} s")

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._seconds_to_next()):
            # A handler of this turn may have closed what a later event is about.
            if self._selector.get_map().get(key.fd) is key:
                key.data()
        if os.getpid() == 1:
            self._reap_orphans()
        now = time.monotonic()
        for life in self._lives:
            if life.kill_at is not None and now >= life.kill_at:
                self._log(f"{life.child.name} did not stop in {life.child.stop_timeout_seconds:g} s; killing it")
                life.kill_at = None
                signal.pidfd_send_signal(life.pidfd, signal.SIGKILL)
            if life.start_at is not None and now >= life.start_at and not self._stopping:
                life.start_at = None
                self._begin(life)

    def _seconds_to_next(self) -> float | None:
        times = [t for life in self._lives for t in (life.kill_at, life.start_at) if t is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _reap_orphans(self) -> None:
        ours = {life.pid: life for life in self._lives if life.pid}
        with suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if life := ours.pop(ended.si_pid, None):
                    self._exited(life)
                else:
                    os.waitpid(ended.si_pid, 0)

    def _signalled(self, number: int) -> None:
        if number != signal.SIGCHLD and not self._stopping:
            self._log(f"{signal.Signals(number).name}: stopping")
            self._stopping = True
            for life in self._lives:
                self._await_demand(life, waiting=False)
                life.start_at = None

    def _stop_next(self) -> bool:
        """Ask the last running child to end, unless it was asked; return whether none is left."""
        running = [life for life in self._lives if life.pid]
        if not running:
            return True
        last = running[-1]
        if not last.asked_to_stop:
            last.asked_to_stop = True
            last.kill_at = time.monotonic() + last.child.stop_timeout_seconds
            signal.pidfd_send_signal(last.pidfd, last.child.stop_signal)
        return False

    def _read_output(self, life: _Life) -> None:
        with suppress(BlockingIOError):
            life.partial += os.read(life.output_read, _READ_SIZE)
        *lines, rest = life.partial.split(b"\n")
        if len(rest) > _MAX_LINE:
            lines, rest = [*lines, rest], bytearray()
        life.partial = bytearray(rest)
        for line in lines:
            self._log(f"[{life.child.name}] {line.decode(errors='replace')}")

    def _close(self) -> None:
        for life in self._lives:
            if life.pid:  # Only after an error of our own: no child may stay without its supervisor.
                signal.pidfd_send_signal(life.pidfd, life.child.stop_signal)
            if life.store:
                life.store.close()
            os.close(life.output_read)
            os.close(life.output_write)
        self._selector.close()


def _ending(code: int) -> str:
    return f"exited with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


@contextmanager
def _signals_as_readable(selector: selectors.BaseSelector, signalled: Callable[[int], None]) -> Iterator[None]:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

    def drain() -> None:
        for number in os.read(read, 512):
            signalled(number)

    # A handler must be set, or the default would act before the byte is written.
    handlers = {number: signal.signal(number, lambda *_: None) for number in wanted}
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    selector.register(read, selectors.EVENT_READ, drain)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(read)
        os.close(write)
