"""Start one program the way a service manager does: own session, nothing inherited by accident, sockets by number.

Sockets are handed over as systemd does it (`sd_listen_fds(3)`: descriptors from 3 on, `LISTEN_FDS`, `LISTEN_PID`,
`LISTEN_FDNAMES`), so that a program cannot tell which of the two started it.
"""

import ctypes
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

FIRST_PASSED_DESCRIPTOR = 3
_EXIT_PARENT_GONE = 126
_EXIT_NOT_EXECUTED = 127
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_BLOCKED_WHILE_FORKING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
_libc = ctypes.CDLL(None, use_errno=True)


def spawn(argv: Sequence[str], env: Mapping[str, str], output: int, passed: Sequence[tuple[str, int]]) -> int:
    """Start `argv` in a session of its own and return its process id.

    It gets SIGTERM when this process dies, however that happens. A program that cannot be executed says so on
    `output` and exits with 127. The calling thread must be the main one: to the kernel, the parent dies when the
    *thread* that forked ends.

    Args:
        argv: The program, found through `PATH`, and its arguments.
        env: Its whole environment; the `LISTEN_*` variables are added when something is passed.
        output: The descriptor that becomes its stdout and stderr. Its stdin is `/dev/null`.
        passed: `(name, descriptor)` pairs it gets from descriptor 3 on. Every other descriptor is closed.
    """
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED_WHILE_FORKING)
    try:
        pid = os.fork()
        if pid == 0:
            _become(argv, env, output, passed, parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _become(
    argv: Sequence[str],
    env: Mapping[str, str],
    output: int,
    passed: Sequence[tuple[str, int]],
    parent: int,
) -> NoReturn:
    status = _EXIT_NOT_EXECUTED
    try:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # It died between fork and prctl, and nobody will send the signal.
            status = _EXIT_PARENT_GONE
        else:
            _place_descriptors(output, [descriptor for _, descriptor in passed])
            _default_signals()
            os.execvpe(argv[0], list(argv), {**env, **_listen_variables(passed)})  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot execute {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(status)


def _listen_variables(passed: Sequence[tuple[str, int]]) -> dict[str, str]:
    if not passed:
        return {}
    names = ":".join(name for name, _ in passed)
    return {"LISTEN_FDS": str(len(passed)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}


def _place_descriptors(output: int, passed: Sequence[int]) -> None:
    end = FIRST_PASSED_DESCRIPTOR + len(passed)
    # Out of the way first: a source may sit on the number another one has to take.
    output, *sources = (fcntl.fcntl(descriptor, fcntl.F_DUPFD, end) for descriptor in (output, *passed))
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in enumerate((null, output, output, *sources)):
        os.dup2(source, target)
    os.closerange(end, os.sysconf("SC_OPEN_MAX"))


def _default_signals() -> None:
    """Undo what would outlive exec: signals Python ignores, and the mask held during the fork."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
