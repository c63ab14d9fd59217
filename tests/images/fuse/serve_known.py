"""`serve_known.py DESCRIPTOR SESSION-FILE`: serve the files of the take-over test until killed.

Content comes from threads and a little late, so that a kill finds requests that were taken and not answered.
"""

import os
import random
import sys
import time
from pathlib import Path

from edge.images.fuse.server import FuseServer, Session
from tests.images.fuse.known_files import KnownFiles

SIZE = 64 << 20
NAMES = 3000


class LateFiles(KnownFiles):
    """Content is never at hand, and comes within some milliseconds."""

    def ready(self, node: int, offset: int, size: int) -> bytes | None:
        return None if offset else super().ready(node, offset, size)

    def read(self, node: int, offset: int, size: int) -> bytes:
        # A disk's or a link's time, not a wait for a condition.
        time.sleep(random.uniform(0.001, 0.02))
        data = super().ready(node, offset, size)
        assert data is not None
        return data


def main() -> None:
    descriptor, session = int(sys.argv[1]), Path(sys.argv[2])
    files = LateFiles()
    files.add("big", size=SIZE)
    for number in range(NAMES):
        files.add(f"many/{number}", b"x" * (number + 1))
    before = Session.from_json(session.read_bytes()) if session.exists() else None
    FuseServer(descriptor, files, before, lambda agreed: _keep(session, agreed)).serve()
    os._exit(0)


def _keep(path: Path, session: Session) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(session.to_json())
    temporary.replace(path)


if __name__ == "__main__":
    main()
