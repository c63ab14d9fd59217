"""Versions of `edge` beside each other: a venv each, and two links that say which runs and which is known good.

A folder without its signed manifest was not finished, and is begun anew. A link changes by rename, so at any moment it
leads to one whole version.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge.errors import EdgeError, NotFoundError, StoreError, StoreFullError
from edge.files import make_folder, store_error, sync_folder, write_atomically
from edge.firmware.bundle_file import RuntimeBundle
from edge.managed_runtime import CURRENT, GOOD, VERSIONS

_log = logging.getLogger(__name__)
MANIFEST: Final = "manifest.dsse.json"
_GROWTH: Final = 5
"""Unpacked, compiled and with its wheels still there, a version takes this many times what its wheels have."""
_SPARE_BYTES: Final = 32 << 20
_INSTALL_SECONDS: Final = 900
"""A Pi Zero 2 on a slow card compiles for minutes."""


class Runtimes:
    """The folder BASE with its versions; only whoever holds the updater's lock changes it."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def path(self, version: str) -> Path:
        """Where a version is, or would be."""
        return self.base / VERSIONS / version

    def current(self) -> str:
        """Return the version that runs, or would if it were started.

        Raises:
            NotFoundError: There is none: BASE is not such a folder.
        """
        version = self._target(CURRENT)
        if not version:
            raise NotFoundError(
                f"{self.base} holds no versions of edge",
                hint=f"It needs {VERSIONS}/VERSION and a link {CURRENT}; the role `edge` of the collection makes them.",
            )
        return version

    def good(self) -> str:
        """Return the version that proved itself last; without a note, that is the one that runs."""
        return self._target(GOOD) or self.current()

    def is_whole(self, version: str) -> bool:
        """Return whether a version's installation was finished."""
        return (self.path(version) / MANIFEST).is_file() or version in (self._target(GOOD), self._target(CURRENT))

    def _target(self, link: str) -> str:
        try:
            target = (self.base / link).readlink()
        except OSError:
            return ""
        return target.name if (self.base / target).is_dir() else ""

    def install(self, bundle: RuntimeBundle) -> None:
        """Put a verified bundle's version beside the others; nothing that runs is touched.

        Raises:
            StoreFullError: There is no room for it; nothing remains.
            EdgeError: It cannot be unpacked, or does not start; nothing remains.
        """
        version = bundle.manifest.version
        self._check_room(sum(file.size for file in bundle.manifest.files))
        path = self.path(version)
        try:
            self.remove(version)
            make_folder(path.parent, 0o755)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wheels-") as unpacked:
                _make_venv(path, bundle.unpack(Path(unpacked)))
            _check_starts(path, version)
            # All of it before the note that it is whole.
            os.sync()
            write_atomically(path / MANIFEST, bundle.envelope, 0o644)
            sync_folder(path.parent)
        except OSError as error:
            self.remove(version)
            raise store_error(f"cannot install edge {version} in {path}", error) from error
        except EdgeError:
            self.remove(version)
            raise

    def _check_room(self, size: int) -> None:
        needed = size * _GROWTH + _SPARE_BYTES
        free = shutil.disk_usage(self.base).free
        if free < needed:
            raise StoreFullError(
                f"{self.base} has {free >> 20} MiB free, and the new version needs up to {needed >> 20} MiB",
                hint="`edge image prune` makes room.",
            )

    def remove(self, version: str) -> None:
        """Remove a version, its note first: what is half removed is not whole.

        Raises:
            StoreError: It is in use.
        """
        path = self.path(version)
        if version in (self._target(CURRENT), self._target(GOOD)):
            raise StoreError(f"{path} is in use and was not removed")
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)

    def switch(self, version: str) -> None:
        """Let a version be the one that runs from the next start on. It is on the disk when this returns."""
        self._point(CURRENT, version)

    def mark_good(self, version: str) -> None:
        """Note that a version has proved itself."""
        self._point(GOOD, version)

    def _point(self, link: str, version: str) -> None:
        if self._target(link) == version:
            return
        temporary = self.base / f".{link}.new"
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(Path(VERSIONS, version))
            temporary.replace(self.base / link)
            sync_folder(self.base)
        except OSError as error:
            raise store_error(f"cannot let {self.base / link} lead to {version}", error) from error

    def prune(self, keep: Sequence[str]) -> None:
        """Remove all versions but those in use and those named, and what cut-off installations left."""
        kept = {self._target(CURRENT), self._target(GOOD), *keep}
        for path in (self.base / VERSIONS).iterdir():
            if path.name not in kept and path.is_dir() and not path.is_symlink():
                _log.info("removing %s", path)
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)


def base_python() -> Path:
    """Return the host's own interpreter, of which versions are made: not that of a venv."""
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _make_venv(path: Path, wheels: Sequence[Path]) -> None:
    _run((str(base_python()), "-I", "-m", "venv", str(path)), "make a venv; is Debian's python3-venv installed?")
    # No index and no dependencies: what is not in the bundle was not signed.
    pip = (f"{path}/bin/python", "-I", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir")
    _run((*pip, "--disable-pip-version-check", *map(str, wheels)), "install the wheels")


def _check_starts(path: Path, version: str) -> None:
    """A venv that cannot even say its version is not tried on the agent."""
    said = _run((f"{path}/bin/edge", "--version"), "start").strip()
    if said != f"edge {version}":
        raise EdgeError(f"the bundle says edge {version}, and the program in it says {said!r}")
    _run((f"{path}/bin/edge", "agent", "run", "--help"), "start")
    # Isolated (-I): whatever lies in the folder we were called in is not the new version.
    # Missing or broken dependencies show only when the device's large imports are made.
    _run((f"{path}/bin/python", "-I", "-c", "import edge.agent.app"), "import the agent")
    _run((f"{path}/bin/python", "-I", "-m", "pip", "check", "--disable-pip-version-check"), "find what it needs")


def _run(command: Sequence[str], what: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EdgeError(f"the new version could not {what}: not done after {_INSTALL_SECONDS} s") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise EdgeError(f"the new version could not {what}: {words[-1] if words else done.returncode}")
    return done.stdout
