"""The two root slots of a device in a booted machine: a real image, real bundles, real power cuts.

`EDGE_UNITS` names the folder of edge's systemd units, if it is not the Ansible role's. Debian's part of the image is
kept in build/firmware/.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.runtime_versions import ROOT
from tests.vm.firmware_images import build_images
from tests.vm.firmware_story import Story

NAME = "firmware"
UNITS = Path(os.environ.get("EDGE_UNITS", str(ROOT / "ansible" / "roles" / "edge" / "files")))


def run(report: Any) -> None:
    """Build the image, and let the machine live through its story."""
    cache = ROOT / "build" / "firmware"
    cache.mkdir(parents=True, exist_ok=True)
    steps: dict[str, float] = {}

    def told(what: str, seconds: float) -> None:
        sys.stdout.write(f"{seconds:7.1f} s  {what}\n")
        sys.stdout.flush()
        steps[what] = seconds

    # A disk, not a tmpfs: the images have gigabytes.
    with tempfile.TemporaryDirectory(prefix="edge-firmware-", dir="/var/tmp") as name:
        folder = Path(name)
        images = build_images(folder, units=UNITS, cache=cache)
        try:
            Story(images, folder / "machine", told).run()
        except BaseException:
            log = folder / "machine" / "console.log"
            if log.exists():
                shutil.copy(log, cache / "console.log")
                sys.stdout.write(f"the console is in {cache / 'console.log'}\n")
            raise
    for what, seconds in steps.items():
        report.figure(name=what, value=round(seconds, 1), unit="s", goal="", holds=True, runs=1)
