"""`./dev bench [NAME]…`: run benchmarks, write their figures, compare them with the goals.

A benchmark is a file `bench_*.py` beside this one with `NAME: str` and `run(report: Report) -> None`.
Exit code 0 when all ran, 3 when a figure falls short of its goal, 1 when a benchmark failed, 2 for an unknown name.
"""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.report import Report, host_facts

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parents[1] / "build" / "bench"
FAILED, UNKNOWN, FALLS_SHORT = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark that was found."""

    name: str
    run: Callable[[Report], None]


def main(names: Sequence[str], folder: Path = HERE, figures: Path = FIGURES, kind: str = "bench") -> int:
    """Run the named ones of `folder`'s `{kind}_*.py` files, or all."""
    found = {one.name: one for one in map(_load, sorted(folder.glob(f"{kind}_*.py")))}
    unknown = [name for name in names if name not in found]
    if unknown or not found:
        _say(f"there is no {kind} {unknown[0]!r}" if unknown else f"there is no {kind} in {folder}")
        _say(f"there are: {', '.join(found) or 'none'}")
        return UNKNOWN
    codes = [_run(found[name], figures) for name in names or found]
    return FAILED if FAILED in codes else max(codes)


def _load(path: Path) -> Benchmark:
    spec = importlib.util.spec_from_file_location(f"tests.{path.parent.name}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Its dataclasses look themselves up.
    spec.loader.exec_module(module)
    return Benchmark(module.NAME, module.run)


def _run(benchmark: Benchmark, figures: Path) -> int:
    _say(f"== {benchmark.name}")
    report = Report(say=_say)
    try:
        benchmark.run(report)
    except Exception:  # noqa: BLE001 - the other benchmarks still run
        traceback.print_exc()
        return FAILED
    path = figures / f"{benchmark.name}.json"
    report.write(path, host_facts())
    _say(report.table())
    _say(f"-> {path}")
    return FALLS_SHORT if report.falls_short else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
