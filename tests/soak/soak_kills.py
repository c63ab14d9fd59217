"""The real agent is killed a thousand times while containers speak, publish and are measured.

`EDGE_SOAK_KILLS` sets how often, `EDGE_SOAK_SEED` repeats a run.
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.killed_agent import kill_under_load, start_measuring
from tests.support.podman import podman_service
from tests.support.stack import running_stack

NAME = "kills"
KILLS = int(os.environ.get("EDGE_SOAK_KILLS", "1000"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", str(int(time.time()))))


def run(report: Any) -> None:
    """All kills, one after the other, of one device's agent."""
    sys.stdout.write(f"seed {SEED}, {KILLS} kills\n")
    sys.stdout.flush()
    with (
        tempfile.TemporaryDirectory(prefix="edge-soak-") as name,
        podman_service(Path(name)) as podman,
        running_stack(Path(name) / "stack", podman) as stack,
    ):
        start_measuring(stack)
        left = kill_under_load(stack, KILLS, random.Random(SEED))
    sys.stdout.write(f"{left}\n")
    for what, count, least in (
        ("SIGKILLs of the agent", KILLS, 1000),
        ("readings acknowledged", left.acknowledged, KILLS),
    ):
        report.figure(name=what, value=count, unit="", goal=f">= {least}", holds=count >= least, runs=KILLS)
    report.figure(name="readings without an answer", value=left.unsure, unit="", goal="", holds=True, runs=KILLS)
    for what, found in (
        ("acknowledged readings that did not arrive", left.lost),
        ("readings that arrived twice", left.doubled),
        ("streams with records unaccounted for", left.missing),
        ("containers made anew", left.recreated),
    ):
        report.figure(name=what, value=len(found), unit="", goal="<= 0", holds=not found, runs=KILLS)
