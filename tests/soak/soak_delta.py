"""The fault tests of updates that take minutes: files `soak_delta_*.py`, which `./dev test` does not collect."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

NAME = "delta"
FAULTS = Path(__file__).resolve().parents[1] / "faults" / "images"


class _Count:
    """Counts what pytest ran."""

    def __init__(self) -> None:
        self.passed = 0
        self.bad: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        if report.failed:
            self.bad.append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed += 1


def run(report: Any) -> None:
    """Run them."""
    files = sorted(str(path) for path in FAULTS.glob("soak_delta_*.py"))
    count = _Count()
    with tempfile.TemporaryDirectory(prefix="edge-soak-") as name:
        code = pytest.main(["-q", f"--basetemp={name}/t", *files], plugins=[count])
    sys.stdout.write("".join(f"failed: {one}\n" for one in count.bad))
    report.figure(name="tests passed", value=count.passed, unit="", goal=">= 1", holds=count.passed > 0, runs=1)
    bad = len(count.bad) or int(code != pytest.ExitCode.OK)
    report.figure(name="tests failed", value=bad, unit="", goal="<= 0", holds=not bad, runs=1)
