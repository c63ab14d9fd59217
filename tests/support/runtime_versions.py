"""Real versions of this project's own wheel, good and broken on purpose, and what they need beside them."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKED: Final = ("edge", "pyproject.toml", "README.md", "LICENSE")
PYTHON: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
DIES_AT_START: Final = (
    "edge/cli/agent_run.py",
    "    config = load_config(args.config)",
    '    raise SystemExit("broken on purpose")',
)
"""Imports, says its version, and ends as soon as it should work."""


def needed_wheels() -> Path:
    """Return a folder with wheels of all that `edge` needs on a device; fetched once for each pyproject.toml."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()[:16]
    folder = ROOT / "build" / f"wheels-{digest}"
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}")
        _pip("wheel", "--quiet", "--wheel-dir", str(partial), "--no-build-isolation", str(ROOT))
        for own in partial.glob("edge-*.whl"):
            own.unlink()
        partial.rename(folder)
    return folder


def build_version(folder: Path, version: str, *changes: tuple[str, str, str]) -> Path:
    """Build this tree's wheel as `version`, and return a folder with it and with all that it needs.

    Args:
        folder: Where to work.
        version: Put into `pyproject.toml` and `edge/__init__.py`.
        changes: File, text in it, and what to put in front of that text.
    """
    source, wheels = folder / f"source-{version}", folder / f"wheels-{version}"
    source.mkdir(parents=True)
    for name in PACKED:
        found = ROOT / name
        if found.is_dir():
            shutil.copytree(found, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, source / name)
    here = '"0.1.0"'
    for name, line in (("pyproject.toml", f"version = {here}"), ("edge/__init__.py", f"__version__ = {here}")):
        _edit(source / name, line, line.replace(here, f'"{version}"'))
    for name, text, before in changes:
        _edit(source / name, text, f"{before}\n{text}")
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels))
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    for wheel in needed_wheels().iterdir():
        os.link(wheel, wheels / wheel.name)
    return wheels


def install_first(base: Path, wheels: Path, version: str) -> None:
    """Do what a device's set-up does: one version, and the link to it."""
    path = base / "versions" / version
    subprocess.run((f"/usr/bin/python{PYTHON}", "-m", "venv", str(path)), check=True, capture_output=True)
    pip = (f"{path}/bin/python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir")
    subprocess.run(
        (*pip, "--disable-pip-version-check", *map(str, wheels.glob("*.whl"))), check=True, capture_output=True
    )
    (base / "current").symlink_to(Path("versions", version))


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old}"
    path.write_text(text.replace(old, new, 1))


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
