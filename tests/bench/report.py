"""What a benchmark says: figures with their goals, and on which host they were had."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge.files import write_atomically


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured, unique in its report.
        value: In `unit`.
        unit: As SI writes it, or `x` for a ratio.
        goal: The goal in words, such as `<= 0.8`; empty when there is none.
        holds: The goal is met; True when there is none.
        runs: How many runs stand behind the value.
    """

    name: str
    value: float
    unit: str
    goal: str
    holds: bool
    runs: int


@dataclass(slots=True)
class Report:
    """A benchmark's figures, in the order they were found.

    Attributes:
        figures: So far.
        say: Is told each figure as it is found: some benchmarks take long.
    """

    figures: list[Figure] = field(default_factory=list)
    say: Callable[[str], None] = lambda _: None

    def figure(  # noqa: PLR0913 - a figure's fields
        self, *, name: str, value: float, unit: str, goal: str = "", holds: bool = True, runs: int = 1
    ) -> None:
        """Add a figure."""
        assert all(one.name != name for one in self.figures), f"there is a figure {name!r} already"
        self.figures.append(Figure(name, value, unit, goal, holds, runs))
        self.say("  ".join(_row(self.figures[-1])))

    @property
    def falls_short(self) -> bool:
        """A goal is not met."""
        return not all(one.holds for one in self.figures)

    def write(self, path: Path, host: dict[str, object]) -> None:
        """Put it at `path` as JSON; the former file stays when this fails."""
        document = {"host": host, "figures": [asdict(one) for one in self.figures]}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=2).encode() + b"\n", 0o644)

    def table(self) -> str:
        """For people."""
        rows = [("FIGURE", "VALUE", "UNIT", "GOAL", "HOLDS", "RUNS"), *map(_row, self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _row(figure: Figure) -> tuple[str, ...]:
    verdict = "" if not figure.goal else "yes" if figure.holds else "NO"
    return (figure.name, f"{figure.value:.4g}", figure.unit, figure.goal, verdict, str(figure.runs))


def host_facts() -> dict[str, object]:
    """What a reader must know of this host to compare."""
    return {
        "cpu": _cpu_model(Path("/proc/cpuinfo").read_text()),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memoryBytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "podman": _version("podman", "--version"),
        "python": platform.python_version(),
    }


def _cpu_model(cpuinfo: str) -> str:
    # x86 names the processor; on ARM boards the board is named, at the end.
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1] if found else "unknown"


def _version(*command: str) -> str:
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "not installed"
    return text.strip().rpartition(" ")[2]
