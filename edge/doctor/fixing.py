"""What `--fix` does. Nothing here ends a container, and what is done twice is done once."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import assert_never

from edge.doctor.findings import Fix
from edge.errors import EdgeError
from edge.files import write_atomically

_PATIENCE_SECONDS = 120.0


def mend(fix: Fix, cmdline_file: Path | None) -> str:
    """Do it; what was done, in a sentence.

    Raises:
        EdgeError: It did not work.
    """
    match fix:
        case Fix.ENABLE_MEMORY_CGROUP:
            return _enable_memory_cgroup(cmdline_file)
        case (
            Fix.LOAD_FUSE
            | Fix.LOAD_OVERLAY
            | Fix.START_PODMAN_SOCKET
            | Fix.START_IMAGES
            | Fix.START_AGENT
            | Fix.SET_CLOCK
        ):
            return _run(fix.value)
        case _:
            assert_never(fix)


def with_memory_cgroup(line: str) -> str:
    """Return a kernel command line that switches the memory controller on; one that does is returned as it is.

    Raises:
        EdgeError: It is empty: a firmware that finds such a file does not start.
    """
    words = line.split()
    if not words:
        raise EdgeError("cmdline.txt is empty", hint="Write the card anew, or restore the file.")
    if "cgroup_enable=memory" in words:
        return line
    # `cgroup_disable=memory` comes from the firmware's own line on some kernels, and the later word counts.
    return " ".join((*words, "cgroup_enable=memory", "cgroup_memory=1")) + "\n"


def _enable_memory_cgroup(path: Path | None) -> str:
    if path is None:
        raise EdgeError("there is no cmdline.txt", hint="Add cgroup_enable=memory to the kernel's command line.")
    try:
        before = path.read_text(encoding="ascii")
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeError(f"cannot read {path}: {error}") from error
    after = with_memory_cgroup(before)
    if after != before:
        write_atomically(path, after.encode("ascii"), mode)
    return f"{path} has it; restart the device"


def _run(command: str) -> str:
    if os.geteuid() != 0:
        raise EdgeError(f"{command} needs root", hint="Run it with sudo.")
    try:
        done = subprocess.run(  # noqa: S603 - one of `Fix`
            command.split(), capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeError(f"{command}: {error}") from error
    if done.returncode != 0:
        told = re.sub(r"\s+", " ", done.stderr).strip()
        raise EdgeError(f"{command} failed: {told}")
    return f"{command}: done"
