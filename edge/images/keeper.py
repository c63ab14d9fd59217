"""The mount's descriptor outlives the service: whoever holds it open keeps every reader waiting instead of failing.

Under systemd that is its file descriptor store (`sd_notify(3)`, `FDSTORE=1`). Elsewhere it is a process that sleeps for
ever, in a session of its own, so that neither `kill -9` of this service nor of whatever started it reaches the mount;
the next service takes the descriptor from it with `pidfd_getfd(2)`.
"""

import array
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge.errors import StoreError
from edge.files import write_atomically

_NAME: Final = "edge-images-fuse"
_FUSE_DEVICE: Final = os.makedev(10, 229)
"""`/dev/fuse`, Documentation/admin-guide/devices.txt."""
_FIRST_PASSED: Final = 3
_PIDFD_GETFD: Final = 438
"""System call number, the same on arm64 and x86-64 (Linux 5.6)."""
_libc = ctypes.CDLL(None, use_errno=True)


def keep(descriptor: int, record: Path, environment: Mapping[str, str]) -> None:
    """Have the descriptor of a new mount kept by somebody else.

    Args:
        descriptor: `/dev/fuse` of the mount.
        record: Where the keeping process is written down, if it is one.
        environment: `NOTIFY_SOCKET` says that a service manager keeps descriptors.

    Raises:
        StoreError: Nobody can keep it.
    """
    manager = environment.get("NOTIFY_SOCKET", "")
    if manager:
        _give_to_manager(descriptor, manager)
        return
    sleep = shutil.which("sleep", path=environment.get("PATH", os.defpath))
    if sleep is None:
        raise StoreError("there is no program `sleep` to keep the mount", hint="Install coreutils or busybox.")
    # What `ps` shows; busybox goes by its own name.
    name = sleep if Path(sleep).resolve().name == "busybox" else f"edge-images keeps {record.parent}"
    process = subprocess.Popen(  # noqa: S603 - found above
        (name, "infinity"),
        executable=sleep,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(descriptor,),
        start_new_session=True,
        cwd="/",
    )
    # Not ours to wait for: it ends with `release`, or with the host.
    process.returncode = 0
    facts = {"pid": process.pid, "started": _start_time(process.pid), "descriptor": descriptor}
    write_atomically(record, json.dumps(facts).encode())


def kept(record: Path, environment: Mapping[str, str]) -> int | None:
    """Return the descriptor of the mount that an earlier service made, or None; it is the caller's from now on."""
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    if environment.get("LISTEN_PID") == str(os.getpid()) and _NAME in names:
        descriptor = _FIRST_PASSED + names.index(_NAME)
        os.set_inheritable(descriptor, False)  # noqa: FBT003 - its own signature
        return descriptor if _is_fuse(descriptor) else None
    facts = _facts(record)
    if facts is None:
        return None
    with suppress(OSError):
        pidfd = os.pidfd_open(facts["pid"])
        try:
            descriptor = _libc.syscall(_PIDFD_GETFD, pidfd, facts["descriptor"], 0)
        finally:
            os.close(pidfd)
        if descriptor >= 0 and _is_fuse(descriptor):
            return int(descriptor)
        if descriptor >= 0:
            os.close(descriptor)
    return None


def release(record: Path, environment: Mapping[str, str]) -> None:
    """Let go of the descriptor: with it the mount ends, once it is unmounted."""
    manager = environment.get("NOTIFY_SOCKET", "")
    if manager:
        _notify(manager, f"FDSTOREREMOVE=1\nFDNAME={_NAME}", ())
    facts = _facts(record)
    if facts is not None:
        with suppress(ProcessLookupError):
            os.kill(facts["pid"], signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(facts["pid"], 0)
    record.unlink(missing_ok=True)


def _give_to_manager(descriptor: int, manager: str) -> None:
    _notify(manager, f"FDSTORE=1\nFDNAME={_NAME}\nFDPOLL=0", (descriptor,))


def _notify(manager: str, message: str, descriptors: tuple[int, ...]) -> None:
    address = "\0" + manager[1:] if manager.startswith("@") else manager
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendmsg([message.encode()], rights)
    except OSError as error:
        raise StoreError(f"the service manager on {manager} does not keep descriptors: {error.strerror}") from error


def _facts(record: Path) -> dict[str, int] | None:
    """The keeping process, if it is alive and still that process."""
    try:
        facts = json.loads(record.read_bytes())
        pid, started = int(facts["pid"]), int(facts["started"])
        facts = {"pid": pid, "descriptor": int(facts["descriptor"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if _start_time(pid) == started else None


def _start_time(pid: int) -> int:
    """In ticks since boot; 0 when there is no such process. Field 22 of proc(5)'s stat."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _is_fuse(descriptor: int) -> bool:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == _FUSE_DEVICE
