"""A socket that listens inside a container's network, where nobody else can reach it, and is served from outside.

A process of its own enters the network namespace, binds, and hands the socket over: a thread that enters one could not
be used for anything else. The host itself listens on nothing.
"""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from typing import Final

from edge.agent.adapters.podman.exits import is_process_of
from edge.errors import EngineError
from edge.model.task_identity import ADDRESS

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_SIOCGIFFLAGS: Final = 0x8913  # linux/sockios.h
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1  # linux/if.h
_IFREQ: Final = struct.Struct("16sh22x")
_BACKLOG: Final = 8
_SECONDS: Final = 30.0


def listen_inside(runtime_id: str, pid: int) -> socket.socket:
    """Return a socket that listens on `ADDRESS` in the network of a container's process.

    Raises:
        EngineError: The process is gone, has the host's network, or the port is taken inside.
    """
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EngineError(f"cannot enter the network of process {pid}: {error.strerror}") from error
    try:
        # Asked after it was opened: a process id may be somebody else's by now.
        if not is_process_of(runtime_id, pid):
            raise EngineError(f"process {pid} is not of container {runtime_id[:12]} any more")
        if os.fstat(namespace).st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116 - a link of the kernel's
            raise EngineError(f"container {runtime_id[:12]} has the host's network")
        return _bound_by_another(namespace)
    finally:
        os.close(namespace)


def _bound_by_another(namespace: int) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        ours.settimeout(_SECONDS)
        command = (sys.executable, "-m", "edge.agent.adapters.netns_listener", str(namespace))
        try:
            done = subprocess.run(  # noqa: S603 - our own
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(namespace,),
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineError(f"cannot listen inside a container: {error}") from error
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
            raise EngineError(f"cannot listen inside a container: {told[-1]}")
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise EngineError("cannot listen inside a container: no socket came")
    listener = socket.socket(fileno=descriptors[0])
    listener.set_inheritable(False)
    listener.settimeout(0)
    return listener


def _bind_inside(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # With networkMode none the loopback may not be up yet.
        answer = fcntl.ioctl(listener, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        fcntl.ioctl(listener, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", _IFREQ.unpack(answer)[1] | _IFF_UP))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(ADDRESS)
        listener.listen(_BACKLOG)
        with socket.socket(fileno=os.dup(0)) as channel:
            socket.send_fds(channel, [b"x"], [listener.fileno()])


if __name__ == "__main__":
    try:
        _bind_inside(int(sys.argv[1]))
    except OSError as error:
        sys.exit(f"{error.strerror}")
