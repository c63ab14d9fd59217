"""`Vault` fulfilled by a folder in memory: values stand there while a container starts, put by a process of their own.

Podman keeps a secret of its own `file` driver in clear on the disk; so the agent gives it one that only says where the
value will stand (docs/adr/0020).
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.errors import SecretUnavailableError
from edge.model.secrets import DesiredSecret

_log = logging.getLogger(__name__)
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_PLACES: Final = ("/run", "/dev/shm")  # noqa: S108 - a folder of our own is made there, for us alone
_SECONDS: Final = 60.0


class MemoryVault:
    """See the module; usable from any thread.

    Args:
        key_file: The device's X25519 key.
        cluster, device: What its secrets are bound to.
        owner: What tells this agent's folder from that of another agent of the host.
        places: Where a folder may be made, if they are in memory.
    """

    def __init__(
        self, key_file: Path, cluster: str, device: str, *, owner: str, places: Sequence[str] = _PLACES
    ) -> None:
        self._key_file = key_file
        self._cluster, self._device = cluster, device
        name = f"edge-secrets-{hashlib.sha256(owner.encode()).hexdigest()[:16]}"
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        place = next((place for place in places if is_in_memory(mounts, place)), None)
        self._folder = Path(place) / name if place else None
        self.clear()

    def clear(self) -> None:
        """Remove what an agent before this one, killed while a container started, has left."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def files(self, task_id: str, container: str, variables: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """See `Vault`."""
        if self._folder is None:
            raise SecretUnavailableError(
                f"unable to place secrets: none of {', '.join(_PLACES)} is in memory on this host",
                hint="Mount a tmpfs on /run, as every Debian has it.",
            )
        names = {one: hashlib.sha256(f"{task_id}/{container}/{one}".encode()).hexdigest()[:32] for one in variables}
        return tuple((variable, str(self._folder / name)) for variable, name in names.items())

    @contextmanager
    def opened(self, secrets: Sequence[tuple[str, DesiredSecret]]) -> Iterator[None]:
        """See `Vault`."""
        try:
            if secrets:
                self._open(secrets)
            yield
        finally:
            for file, _ in secrets:
                Path(file).unlink(missing_ok=True)

    def _open(self, secrets: Sequence[tuple[str, DesiredSecret]]) -> None:
        self._make_folder()
        asked = {
            "key": str(self._key_file),
            "cluster": self._cluster,
            "device": self._device,
            "secrets": [
                {"name": one.name, "version": one.version, "sealed": one.sealed, "file": file} for file, one in secrets
            ],
        }
        command = (sys.executable, "-m", "edge.agent.secret_opening")
        try:
            done = subprocess.run(  # noqa: S603 - our own
                command, input=json.dumps(asked).encode(), capture_output=True, timeout=_SECONDS, check=False
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise SecretUnavailableError(f"unable to open secrets: {error}") from error
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
            raise SecretUnavailableError(
                f"unable to open secrets: {told[-1]}",
                hint="`edge secret set` seals it anew, to the key this device has now.",
            )

    def _make_folder(self) -> None:
        assert self._folder is not None  # noqa: S101 - `files` named the places
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            found = self._folder.lstat()
        except OSError as error:
            raise SecretUnavailableError(f"cannot make {self._folder}: {error.strerror}") from error
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or not self._folder.is_dir():
            raise SecretUnavailableError(f"{self._folder} is somebody else's: remove it")


def is_in_memory(mounts: str, place: str) -> bool:
    r"""Tell from the text of `/proc/self/mounts` whether a folder is on a file system in memory.

    >>> is_in_memory("/dev/sda / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n", "/run")
    True
    """
    rows = [line.split() for line in mounts.splitlines()]
    over = [row for row in rows if len(row) > 2 and (place + "/").startswith(row[1].rstrip("/") + "/")]  # noqa: PLR2004
    # Of mounts on one another the last one counts, and the longest path of all.
    kind = max(enumerate(over), key=lambda one: (len(one[1][1].rstrip("/")), one[0]), default=None)
    return kind is not None and kind[1][2] in _IN_MEMORY
