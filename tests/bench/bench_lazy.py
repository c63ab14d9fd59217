"""Cold starts through the image service, beside `podman pull && podman run`, on shaped links to a real registry.

Every start is on an empty disk. A ratio compares medians of runs that took turns. "Its own limit" is what a start
cannot beat with the spans it reads: their bytes at the link's rate, and the container's start with all bytes at hand.
`EDGE_BENCH_LAZY=short` leaves out the links of 10 Mbit/s and the largest image.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench import lazy_fuse, lazy_service
from tests.bench.cold_starts import READY, Lazy, lazily, limit_seconds, place, pulled
from tests.support.shaped import ShapedRegistry

NAME = "lazy"
ROOT = Path(__file__).resolve().parents[2]
LINKS = ((10.0, 0), (10.0, 40), (50.0, 0), (50.0, 40), (1000.0, 0), (1000.0, 40))
"""Megabits a second, and milliseconds of round trip."""
MAIN, MAIN_LINK = "numpy-app", (50.0, 0)
RUNS, WARM_RUNS = 3, 15
RUNS_OF_SMALL, SMALL_SECONDS = 5, 3.0
FULL_SPEED = 10_000.0
SOCI_GOAL, SOCI_LIMIT_GOAL, OWN_GOAL, WORST_GOAL = 2.0, 1.15, 3.5, 1.10
SECOND_GOAL, UNPACKED_GOAL, LINK_GOAL = 1.5, 1.05, 0.9
SHORT = os.environ.get("EDGE_BENCH_LAZY") == "short"


def run(report: Any) -> None:
    """Measure it all."""
    with tempfile.TemporaryDirectory(prefix="edge-lazy-", dir="/var/tmp") as name:
        folder = Path(name)
        with ShapedRegistry(folder / "registry") as slow:
            _push_all(slow)
            native = _starts_on_this_disk(report, folder, slow)
            _main(report, folder, slow, native)
            _everywhere(report, folder, slow)
            _in_the_background(report, folder, slow)
    lazy_service.run(report)
    lazy_fuse.run(report)


def _push_all(slow: ShapedRegistry) -> None:
    """Each workload three times: as it was built, with our index, and with SOCI's."""
    address = slow.registry.address
    build = (sys.executable, str(ROOT / "images" / "build"), "--insecure", "--push", f"{address}/plain")
    subprocess.run((*build, "--only", ",".join(READY)), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    insecure = ("--all", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false")
    for variant, name in (*(("own", name) for name in READY), ("soci", MAIN)):
        between = (f"docker://{address}/plain/{name}:1", f"docker://{address}/{variant}/{name}:1")
        subprocess.run(("skopeo", "copy", *insecure, *between), check=True)
    for name in READY:
        _index(slow, f"{address}/own/{name}:1", "--index-version", "compact")
    _index(slow, f"{address}/soci/{MAIN}:1", "--index-version", "v1")


def _index(slow: ShapedRegistry, *arguments: str) -> None:
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(slow.registries_conf)}
    command = (sys.executable, "-m", "edge", "image", "index", "push", *arguments)
    subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


def _starts_on_this_disk(report: Any, folder: Path, slow: ShapedRegistry) -> float:
    """A start with all bytes at hand, by Podman's own store and by ours once it is unpacked, in turns."""
    slow.shape(FULL_SPEED)
    address = slow.registry.address
    with (
        place(folder / "native", address, lazy=False) as native,
        place(folder / "ours", address, lazy=True) as ours,
    ):
        native.podman.run_cli("pull", "--quiet", f"{address}/plain/{MAIN}:1")
        assert ours.service is not None
        image = ours.service.prepare(f"{address}/own/{MAIN}:1")["imageId"]
        ours.service.wait_for(image, "MATERIALIZED", 120)
        pairs = [
            (native.run(f"{address}/plain/{MAIN}:1", READY[MAIN]), ours.run(image, READY[MAIN]))
            for _ in range(WARM_RUNS + 1)
        ][1:]
    theirs = statistics.median(first for first, _ in pairs)
    ratio = statistics.median(second for _, second in pairs) / theirs
    report.figure(name=f"{MAIN}: start from Podman's own store", value=round(theirs, 3), unit="s", runs=WARM_RUNS)
    _ratio(report, f"{MAIN}: start once unpacked / from Podman's own store", ratio, UNPACKED_GOAL, WARM_RUNS)
    return theirs


def _main(report: Any, folder: Path, slow: ShapedRegistry, native: float) -> None:
    megabits = MAIN_LINK[0]
    where = f"{MAIN} at {megabits:g} Mbit/s"
    pull, soci, own = list[float](), list[Lazy](), list[Lazy]()
    for _ in range(RUNS):
        pull.append(_pulled(folder, slow, MAIN, MAIN_LINK))
        soci.append(_lazily(folder, slow, "soci", MAIN, MAIN_LINK))
        own.append(_lazily(folder, slow, "own", MAIN, MAIN_LINK))
    base = statistics.median(pull)
    report.figure(name=f"{where}: podman pull && podman run", value=round(base, 2), unit="s", runs=RUNS)
    for what, found, goal in (("SOCI's index of 4 MiB spans", soci, SOCI_GOAL), ("our index", own, OWN_GOAL)):
        ready = statistics.median(one.ready for one in found)
        least = limit_seconds(int(statistics.median(one.wanted for one in found)), megabits, native)
        faster = base / ready
        report.figure(
            name=f"{where}, {what}: times faster", value=round(faster, 2), unit="x", goal=f">= {goal}",
            holds=faster >= goal, runs=RUNS,
        )  # fmt: skip
        if found is soci:
            _ratio(report, f"{where}, {what}: time / its own limit", ready / least, SOCI_LIMIT_GOAL, RUNS)
        else:
            report.figure(name=f"{where}, {what}: time / its own limit", value=round(ready / least, 3), unit="x")
        second = statistics.median(one.second for one in found)
        _ratio(report, f"{where}, {what}: second start while incomplete / native", second / native, SECOND_GOAL, RUNS)
        for name, value, unit in (
            ("ready", ready, "s"),
            ("startable", statistics.median(one.startable for one in found), "s"),
            ("fetched before ready", statistics.median(one.before_ready for one in found) / 1e6, "MB"),
        ):
            report.figure(name=f"{where}, {what}: {name}", value=round(value, 2), unit=unit, runs=RUNS)


def _everywhere(report: Any, folder: Path, slow: ShapedRegistry) -> None:
    """Every workload on every link with our index; without one where that is not the same as pulling."""
    for link in LINKS:
        for workload in READY:
            if SHORT and (link[0] < MAIN_LINK[0] or workload == "toolchain"):
                continue
            base = [_pulled(folder, slow, workload, link)]
            # Of what takes a second, one run says little.
            runs = RUNS_OF_SMALL if base[0] < SMALL_SECONDS else 1
            variants = ("own", "plain") if link[0] >= MAIN_LINK[0] or workload == "sensor" else ("own",)
            ready: dict[str, list[float]] = {variant: [] for variant in variants}
            for run_number in range(runs):
                if run_number:
                    base.append(_pulled(folder, slow, workload, link))
                for variant in variants:
                    ready[variant].append(_lazily(folder, slow, variant, workload, link).ready)
            name = f"{workload} at {link[0]:g} Mbit/s, {link[1]} ms"
            for variant in variants:
                how = "our index" if variant == "own" else "no index"
                ratio = statistics.median(ready[variant]) / statistics.median(base)
                _ratio(report, f"{name}, {how}: time / podman pull && podman run", ratio, WORST_GOAL, runs)


def _in_the_background(report: Any, folder: Path, slow: ShapedRegistry) -> None:
    """How much of the link is used when nothing reads."""
    slow.shape(MAIN_LINK[0])
    address = slow.registry.address
    with place(folder / "b", address, lazy=True) as here:
        assert here.service is not None
        image = here.service.prepare(f"{address}/own/{MAIN}:1")
        here.service.wait_for_bytes(image["imageId"], 8 << 20)
        first, began = slow.sent_bytes(), time.monotonic()
        here.service.wait_for_bytes(image["imageId"], image["size"] - (2 << 20))
        share = (slow.sent_bytes() - first) / (time.monotonic() - began) / (MAIN_LINK[0] * 125_000)
    report.figure(
        name="background completion: share of the link used", value=round(share, 3), unit="x", goal=f">= {LINK_GOAL}",
        holds=share >= LINK_GOAL,
    )  # fmt: skip


def _pulled(folder: Path, slow: ShapedRegistry, workload: str, link: tuple[float, int]) -> float:
    slow.shape(link[0])
    return pulled(folder / "p", f"{slow.address(link[1])}/plain/{workload}:1", workload)


def _lazily(folder: Path, slow: ShapedRegistry, variant: str, workload: str, link: tuple[float, int]) -> Lazy:
    slow.shape(link[0])
    address = slow.address(link[1])
    with place(folder / "l", address, lazy=True) as here:
        return lazily(here, f"{address}/{variant}/{workload}:1", workload, slow.sent_bytes)


def _ratio(report: Any, name: str, value: float, goal: float, runs: int) -> None:
    report.figure(name=name, value=round(value, 3), unit="x", goal=f"<= {goal}", holds=value <= goal, runs=runs)
