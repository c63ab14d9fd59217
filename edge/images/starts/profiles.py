"""The start profiles of this device's images, one file each.

    profiles/<image id>-<architecture>.json

They stay when their image goes: the next version reads much the same. The oldest go when there are too many.
"""

import logging
import os
import re
import threading
from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError, StoreError
from edge.files import store_error, write_atomically
from edge.model.start_profile import MAX_PROFILE_BYTES, StartProfile, read_profile, refined

_log = logging.getLogger(__name__)

MOST_PROFILES: Final = 64
_NAME: Final = re.compile(r"[0-9a-f]{64}-[a-z0-9]{1,16}\.json")


class Profiles:
    """The files under a root. Usable from any thread; one process writes."""

    def __init__(self, root: Path) -> None:
        """Open them.

        Raises:
            StoreError: The folder cannot be made.
        """
        self._folder = root / "profiles"
        self._lock = threading.Lock()
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise store_error(f"cannot make {self._folder}", error) from error

    def all(self) -> list[StartProfile]:
        """Return all of them, the newest first; a file that cannot be read is passed over and removed."""
        found: list[StartProfile] = []
        for path in self._paths():
            try:
                if path.stat().st_size > MAX_PROFILE_BYTES:
                    raise InvalidInputError("it is too large")  # noqa: TRY301 - as all that may be wrong
                found.append(read_profile(path.read_bytes()))
            except (OSError, InvalidInputError) as error:
                _log.warning("the start profile %s is removed: %s", path.name, error)
                path.unlink(missing_ok=True)
        return found

    def of(self, image_id: str, platform: str, image: str) -> StartProfile | None:
        """Return an image's own profile, or the newest of another version of it."""
        profiles = [one for one in self.all() if one.platform == platform]
        own = next((one for one in profiles if one.image_id == image_id), None)
        return own or next((one for one in profiles if image and one.image == image), None)

    def add(self, newer: StartProfile, *, ageing: bool) -> StartProfile:
        """Keep what a start read, together with what was known; returns that.

        Raises:
            StoreError: It cannot be written; the former profile is kept.
        """
        with self._lock:
            former = self.of(newer.image_id, newer.platform, "")
            whole = newer if former is None else refined(former, newer, ageing=ageing)
            self.put(whole)
            return whole

    def put(self, profile: StartProfile) -> None:
        """Keep a profile, in the place of a former one.

        Raises:
            InvalidInputError: Its image id is none.
            StoreError: It cannot be written; the former profile is kept.
        """
        name = f"{profile.image_id}-{profile.platform.rpartition('/')[2]}.json"
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"the profile is of image {profile.image_id[:80]!r} for {profile.platform[:80]!r}")
        write_atomically(self._folder / name, profile.encode())
        for path in self._paths()[MOST_PROFILES:]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        try:
            entries = [(one.stat().st_mtime_ns, one.path) for one in os.scandir(self._folder)]
        except OSError as error:
            raise StoreError(f"cannot read {self._folder}: {error.strerror}") from error
        return [Path(path) for _, path in sorted(entries, reverse=True) if _NAME.fullmatch(Path(path).name)]
