"""The harness that benchmarks run in."""

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import FAILED, FALLS_SHORT, UNKNOWN, main

_GOOD = """
NAME = "good"
def run(report):
    report.figure(name="ratio", value=0.7, unit="x", goal="<= 0.8", holds=True, runs=30)
    report.figure(name="count", value=3, unit="1")
"""
_SHORT = """
NAME = "short"
def run(report):
    report.figure(name="ratio", value=0.9, unit="x", goal="<= 0.8", holds=False, runs=30)
"""
_BROKEN = """
NAME = "broken"
def run(report):
    raise OSError("no such thing")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", _GOOD), ("short", _SHORT), ("broken", _BROKEN)):
        (tmp_path / f"bench_{name}.py").write_text(text)
    return tmp_path


def test_figures_are_written_with_the_host_they_were_had_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["good"], folder, folder / "figures") == 0
    written = json.loads((folder / "figures" / "good.json").read_text())
    assert written["figures"] == [
        {"name": "ratio", "value": 0.7, "unit": "x", "goal": "<= 0.8", "holds": True, "runs": 30},
        {"name": "count", "value": 3, "unit": "1", "goal": "", "holds": True, "runs": 1},
    ]
    assert set(written["host"]) == {"cpu", "architecture", "cores", "memoryBytes", "kernel", "podman", "python"}
    assert "ratio   0.7    x     <= 0.8  yes    30" in capsys.readouterr().out


def test_a_figure_that_falls_short_is_an_exit_code_of_its_own(folder: Path) -> None:
    assert main(["good", "short"], folder, folder / "figures") == FALLS_SHORT
    assert (folder / "figures" / "short.json").exists()


def test_a_benchmark_that_fails_leaves_its_former_figures_and_does_not_keep_others_from_running(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = folder / "figures"
    figures.mkdir()
    (figures / "broken.json").write_text("former")
    assert main([], folder, figures) == FAILED
    assert (figures / "broken.json").read_text() == "former"
    assert (figures / "good.json").exists()
    assert (figures / "short.json").exists()
    assert "no such thing" in capsys.readouterr().err


def test_an_unknown_name_lists_those_that_there_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["god"], folder, folder / "figures") == UNKNOWN
    assert "there are: broken, good, short" in capsys.readouterr().out
