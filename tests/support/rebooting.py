"""A power cut and a new boot, as far as they can be played without a machine of its own."""

import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.support.played_agent import PROGRAM
from tests.support.podman import PodmanService
from tests.support.stack import Stack


def reboot(stack: Stack, podman: PodmanService, boot_id: str, environment: Mapping[str, str] | None = None) -> None:
    """Everything that runs is gone at once, and so is what lies in memory; the network does not come back."""
    stack.broker.kill()
    stack.kill_agent()
    for container_id, _ in stack.running().values():
        for process in processes_of(container_id):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # What the OCI runtime knows lies in /run, which a reboot empties.
        shutil.rmtree(Path("/run/runc") / container_id, ignore_errors=True)
    podman.kill()
    for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
        if line.split()[1].startswith(str(podman.folder)):
            assert os.system(f"umount -l {line.split()[1]}") == 0
    shutil.rmtree(podman.folder / "run")
    shutil.rmtree(podman.folder / "tmp")
    podman.start()
    stack.start_agent(program=PROGRAM, environment={**(environment or {}), "EDGE_TEST_BOOT_ID": boot_id})


def processes_of(container_id: str) -> list[int]:
    """The container's processes and its conmon, which would record the exit otherwise: a power cut records nothing."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                command = (entry / "cmdline").read_bytes()
                group = (entry / "cgroup").read_text()
            except OSError:
                continue
            if container_id in group or (b"conmon" in command and container_id.encode() in command):
                found.append(int(entry.name))
    # conmon first.
    return sorted(found)
