"""Every parser that faces the network, followed by a coverage-guided fuzzer (Atheris on libFuzzer).

`EDGE_FUZZ_SECONDS` sets how long each is tried, `EDGE_FUZZ_PARSERS` which (names with commas between; all without it),
`EDGE_FUZZ_JOBS` how many at once. What crashed a parser, and the corpus, stay in build/soak/fuzz/NAME: a crash becomes
a test in tests/fuzz/test_crashes.py.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.fuzz.parsers import PARSERS

NAME = "fuzz"
SECONDS: Final = int(os.environ.get("EDGE_FUZZ_SECONDS", "600"))
NAMES: Final = tuple(filter(None, os.environ.get("EDGE_FUZZ_PARSERS", "").split(","))) or tuple(
    parser.name for parser in PARSERS
)
JOBS: Final = int(os.environ.get("EDGE_FUZZ_JOBS", "1"))
WANTED: Final = 600
FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "soak" / "fuzz"
NICENESS: Final = 10


@dataclass(frozen=True, slots=True)
class Found:
    """What one parser went through.

    Attributes:
        runs: Inputs.
        seconds: As libFuzzer counts them.
        crashes: 0, or 1: it ends at the first.
        coverage: Branches of `edge` that were taken, counted in the Python code's own terms.
        words: The last of what it printed, for one that crashed.
    """

    name: str
    runs: int
    seconds: int
    crashes: int
    coverage: int
    words: str


def run(report: Any) -> None:
    """Try all of them, and say what each went through."""
    with ThreadPoolExecutor(JOBS) as pool:
        for found in pool.map(_fuzz, NAMES):
            for what, value, unit in (("runs", found.runs, ""), ("coverage", found.coverage, "branches")):
                report.figure(name=f"{found.name}: {what}", value=value, unit=unit, goal="", holds=True)
            report.figure(
                name=f"{found.name}: time",
                value=found.seconds,
                unit="s",
                goal=f">= {WANTED}",
                holds=found.seconds >= WANTED,
            )
            whole = found.crashes == 0
            report.figure(name=f"{found.name}: crashes", value=found.crashes, unit="", goal="<= 0", holds=whole)
            if not whole:
                sys.stdout.write(f"{found.name} in {FOLDER / found.name}:\n{found.words}\n")
                sys.stdout.flush()


def _fuzz(name: str) -> Found:
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        command = (sys.executable, "-m", "tests.fuzz", name, str(SECONDS), str(folder))
        code = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, check=False, preexec_fn=lambda: os.nice(NICENESS)
        ).returncode
    text = (folder / "log").read_text(errors="replace")
    done = re.search(r"Done (\d+) runs in (\d+) second", text)
    reached = [int(found) for found in re.findall(r"cov: (\d+)", text)]
    return Found(
        name,
        runs=int(done[1]) if done else 0,
        seconds=int(done[2]) if done else 0,
        crashes=int(code != 0),
        coverage=max(reached, default=0),
        words="\n".join(text.splitlines()[-40:]),
    )
