"""The power goes after any call to the disk, and bytes turn on it: the outbox and the state file, a million times.

`EDGE_SOAK_STATES` sets how many disks are looked at, `EDGE_SOAK_FLIPS` how many bytes of the buffer are flipped (all of
them without it), `EDGE_SOAK_SEED` repeats a run. A part that finds a broken promise stops; its words are printed.
"""

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.crash_explorer import count_states
from tests.support.flips import SEGMENT, Buffer, check_flips
from tests.support.state_crash import explore, record

NAME = "crash"
STATES = int(os.environ.get("EDGE_SOAK_STATES", "1000000"))
SEED = int(os.environ.get("EDGE_SOAK_SEED", str(int(time.time()))))
BUFFER_BYTES = 1 << 20
FLIPS = int(os.environ.get("EDGE_SOAK_FLIPS", str(BUFFER_BYTES)))
STATE_SHARE = 0.05
"""Of the disks, those of the state file: each opens a real SQLite."""
PARTS = 40
SEEDS_PER_PART = 1_000_000
COMMITS = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part looked at, and what it found broken."""

    looked_at: int
    problem: str = ""


def run(report: Any) -> None:
    """Share the parts among the processors."""
    sys.stdout.write(f"seed {SEED}, {STATES} disks, {FLIPS} flips\n")
    with tempfile.TemporaryDirectory(prefix="edge-soak-") as name, ProcessPoolExecutor() as pool:
        shares = (
            ("outbox: disks after a power cut", _outbox, int(STATES * (1 - STATE_SHARE))),
            ("state file: disks after a power cut", _state_file, int(STATES * STATE_SHARE)),
            ("outbox: flipped bytes", _flips, FLIPS),
        )
        total = 0
        for what, part, count in shares:
            outcomes = list(pool.map(_guarded, [part] * PARTS, range(PARTS), [count] * PARTS, [name] * PARTS))
            for problem in {one.problem for one in outcomes} - {""}:
                sys.stdout.write(f"{what}: {problem}\n")
            done, broken = sum(one.looked_at for one in outcomes), sum(bool(one.problem) for one in outcomes)
            total += done if part is not _flips else 0
            report.figure(name=what, value=done, unit="", goal=f">= {count}", holds=done >= count, runs=1)
            report.figure(name=f"{what}: broken promises", value=broken, unit="", goal="<= 0", holds=not broken, runs=1)
    report.figure(name="disks in all", value=total, unit="", goal=">= 1000000", holds=total >= 1_000_000, runs=1)


Part = Callable[[int, int, Path], int]


def _guarded(part: Part, number: int, count: int, folder: str) -> Outcome:
    share = -(-count // PARTS)
    try:
        return Outcome(part(number, share, Path(folder)))
    except AssertionError as problem:
        return Outcome(0, str(problem))


def _outbox(number: int, share: int, _folder: Path) -> int:
    first = (SEED + number) * SEEDS_PER_PART
    return count_states(range(first, first + SEEDS_PER_PART), share)


def _state_file(number: int, share: int, folder: Path) -> int:
    own = folder / f"state-{number}"
    own.mkdir()
    trace = record(own, COMMITS)
    chance = random.Random(SEED + number)
    return sum(1 for _ in explore(trace, chance, -(-share // len(trace.operations))))


def _flips(number: int, share: int, _folder: Path) -> int:
    """Flip bytes of the same place in each segment at once: no block goes over a segment's end."""
    buffer = _buffer()
    segments = buffer.size // SEGMENT
    chance = random.Random(SEED + number)
    each = -(-share // segments)
    places = range(number * each, min((number + 1) * each, SEGMENT))
    for place in places:
        check_flips(buffer, [segment * SEGMENT + place for segment in range(segments)], 1 << chance.randrange(8))
    return len(places) * segments


def _buffer() -> Buffer:
    """A buffer of at least a mebibyte."""
    blocks = 100
    while (buffer := Buffer.make(blocks)).size < BUFFER_BYTES:
        blocks += 10
    return buffer
