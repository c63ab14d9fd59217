"""Where this very program lies, when it is one of several versions: `BASE/versions/VERSION`, a venv each.

`BASE/current` is the version that runs, `BASE/good` the last one that proved itself (docs/updates.md).
"""

import sys
from pathlib import Path
from typing import Final

VERSIONS: Final = "versions"
CURRENT: Final = "current"
GOOD: Final = "good"
UPDATE_FOLDER: Final = "update"
"""In the state directory: what was asked for, what is on trial, how the last one ended."""
REQUEST_FILE: Final = "request.json"
TRIAL_FILE: Final = "trial.json"
RESULT_FILE: Final = "result.json"


def managed_base(prefix: Path | None = None) -> Path | None:
    """Return BASE if this program runs from such a place (`prefix`: of its venv), else None."""
    folder = (prefix or Path(sys.prefix)).resolve()
    base = folder.parent.parent
    return base if folder.parent.name == VERSIONS and (base / CURRENT).is_symlink() else None


def updater(base: Path, config: Path) -> tuple[str, ...]:
    """Return how to start the updater: of the version that proved itself, for the one that runs may be on trial."""
    link = GOOD if (base / GOOD).is_dir() else CURRENT
    return (str(base / link / "bin" / "edge"), "firmware", "resume", "--config", str(config))


def is_update_open(state_dir: Path) -> bool:
    """Return whether an update was asked for or begun, and has not come to an end."""
    return any((state_dir / UPDATE_FOLDER / name).exists() for name in (REQUEST_FILE, TRIAL_FILE))


def program() -> tuple[str, ...]:
    """Return how to start `edge`, as whatever version is to run at that moment.

    By the script and not by `current/bin/python`: the script names its own version's folder, so a program that runs
    while the link changes goes on importing what it began with.
    """
    base = managed_base()
    return (sys.executable, "-m", "edge") if base is None else (str(base / CURRENT / "bin" / "edge"),)
