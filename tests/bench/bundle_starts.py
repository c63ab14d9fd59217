"""Cold starts with a start profile and with a start bundle, on shaped links to a real registry, on empty disks.

A profile is recorded at one start on a fast link, and a bundle built from it, as a fleet would. What cannot be beaten
is the bytes that start read, packed with zstd -9, at the link's rate, and the same container's start from Podman's own
store. A bundle that has more than half of its image's bytes is not pushed: so `edge image bundle build` advises.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.images.oci.layout import OciLayout
from edge.images.starts import zstd
from edge.images.starts.bundle import BLOB_DIGEST, HEAD_SIZE, MAX_BLOB_BYTES
from edge.model.start_profile import MAX_START_BYTES
from tests.bench.cold_starts import READY, Lazy, lazily, limit_seconds, place, pulled
from tests.support.oci_layout import host_architecture
from tests.support.shaped import ShapedRegistry

ROOT = Path(__file__).resolve().parents[2]
LINKS = ((10.0, 0), (10.0, 40), (50.0, 0), (50.0, 40), (1000.0, 0), (1000.0, 40))
"""Megabits a second, and milliseconds of round trip."""
MAIN, MAIN_LINK = "numpy-app", (50.0, 0)
RUNS, WARM_RUNS, LATENCY_RUNS = 3, 9, 5
RUNS_OF_SMALL, SMALL_SECONDS = 5, 3.0
FULL_SPEED = 10_000.0
WORTH = 0.5
BUNDLE_GOAL, LIMIT_GOAL, PROFILE_GOAL, SHARE_GOAL, MEAN_GOAL, WORST_GOAL = 8.0, 1.25, 4.5, 0.10, 5.0, 0.95
ROUND_TRIPS_GOAL = 6
SHORT = os.environ.get("EDGE_BENCH_BUNDLE") == "short"


@dataclass(slots=True)
class Workload:
    """A workload in the registry, and what is known of its start.

    Attributes:
        packed: What its start reads, with zstd -9; bytes.
        image: Bytes of its layers in the registry.
        native: Seconds of its start from Podman's own store.
        bundled: It has a bundle.
    """

    name: str
    profile: dict[str, Any]
    packed: int
    image: int
    native: float
    bundled: bool
    faster: dict[tuple[float, int], float] = field(default_factory=dict)


def run(report: Any) -> None:
    """Measure it all."""
    names = (MAIN,) if SHORT else tuple(READY)
    with tempfile.TemporaryDirectory(prefix="edge-bundle-", dir="/var/tmp") as name:
        folder = Path(name)
        with ShapedRegistry(folder / "registry") as slow:
            _push_all(slow, names)
            workloads = [_prepared(report, folder, slow, name) for name in names]
            _main(report, folder, slow, next(one for one in workloads if one.name == MAIN))
            _latency(report, folder, slow, next(one for one in workloads if one.name == MAIN))
            if not SHORT:
                _everywhere(report, folder, slow, workloads)


def _push_all(slow: ShapedRegistry, names: tuple[str, ...]) -> None:
    """Each workload as it was built, with our index, and again to get a bundle too."""
    address = slow.registry.address
    build = (sys.executable, str(ROOT / "images" / "build"), "--insecure", "--push", f"{address}/plain")
    # An image of one platform has a manifest less to ask for: both are built, as images are.
    subprocess.run((*build, "--only", ",".join(names)), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    insecure = ("--all", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false")
    for name in names:
        for variant in ("own", "bundle"):
            between = (f"docker://{address}/plain/{name}:1", f"docker://{address}/{variant}/{name}:1")
            subprocess.run(("skopeo", "copy", *insecure, *between), check=True)
            _edge(slow, "image", "index", "push", f"{address}/{variant}/{name}:1")


def _edge(slow: ShapedRegistry, *arguments: str) -> Any:
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(slow.registries_conf)}
    command = (sys.executable, "-m", "edge", *arguments, "--output", "json")
    done = subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    return json.loads(done.stdout or b"null")


def _prepared(report: Any, folder: Path, slow: ShapedRegistry, name: str) -> Workload:
    """Record a start, and build and push the bundle of what it read."""
    slow.shape(FULL_SPEED)
    address = slow.registry.address
    with place(folder / "r", address, lazy=True) as here:
        assert here.service is not None
        image = here.service.prepare(f"{address}/own/{name}:1")["imageId"]
        here.run(image, READY[name])
        here.service.ask("ready", image=image)
        [profile] = here.service.ask("profiles", imageId=image)
    file, layout = folder / f"{name}.profile", folder / f"{name}.bundle"
    file.write_text(json.dumps(profile))
    reference = f"{address}/bundle/{name}:1"
    told = _edge(slow, "image", "bundle", "build", reference, "--profile", str(file), "--output-dir", str(layout))
    bundled = told["size"] <= WORTH * told["imageBytes"]
    if bundled:
        _edge(slow, "image", "bundle", "push", reference, "--from", str(layout))
    with place(folder / "n", address, lazy=False) as native:
        native.podman.run_cli("pull", "--quiet", f"{address}/plain/{name}:1")
        took = [native.run(f"{address}/plain/{name}:1", READY[name]) for _ in range(WARM_RUNS + 1)][1:]
    packed = _packed(layout, told["bundle"])
    report.figure(name=f"{name}: start from Podman's own store", value=round(statistics.median(took), 3), unit="s", runs=WARM_RUNS)  # fmt: skip  # noqa: E501
    report.figure(name=f"{name}: bytes a start reads, zstd -9 / image", value=round(packed / told["imageBytes"], 4), unit="x")  # fmt: skip  # noqa: E501
    report.figure(name=f"{name}: bundle / image", value=round(told["size"] / told["imageBytes"], 4), unit="x")
    return Workload(name, profile, packed, told["imageBytes"], statistics.median(took), bundled)


def _packed(folder: Path, digest: str) -> int:
    layout = OciLayout.at(folder)
    reference = layout.reference().at(digest)
    manifest = layout.manifest(reference)
    notes: dict[str, str] = dict(getattr(manifest, "annotations", {}))
    blob = next(one for one in getattr(manifest, "layers", ()) if one.digest == notes[BLOB_DIGEST])
    data = layout.blob(reference, blob, MAX_BLOB_BYTES)
    payload = zstd.unpack(data[int(notes[HEAD_SIZE]) : -1], MAX_START_BYTES)
    return len(zstd.compress([payload], 9))


def _main(report: Any, folder: Path, slow: ShapedRegistry, workload: Workload) -> None:
    where = f"{MAIN} at {MAIN_LINK[0]:g} Mbit/s"
    pull, known, bundled = list[float](), list[Lazy](), list[Lazy]()
    for _ in range(RUNS):
        pull.append(_pulled(folder, slow, MAIN, MAIN_LINK))
        known.append(_started(folder, slow, workload, MAIN_LINK, "profile"))
        bundled.append(_started(folder, slow, workload, MAIN_LINK, "bundle"))
    base = statistics.median(pull)
    report.figure(name=f"{where}: podman pull && podman run", value=round(base, 2), unit="s", runs=RUNS)
    least = limit_seconds(workload.packed, MAIN_LINK[0], workload.native)
    report.figure(name=f"{where}: the physical limit", value=round(least, 2), unit="s")
    for what, found, goal in (("a profile", known, PROFILE_GOAL), ("a bundle", bundled, BUNDLE_GOAL)):
        ready = statistics.median(one.ready for one in found)
        report.figure(name=f"{where}, {what}: ready", value=round(ready, 2), unit="s", runs=RUNS)
        _startable(report, f"{where}, {what}", found)
        faster = base / ready
        _at_least(report, f"{where}, {what}: times faster", faster, goal, RUNS)
        carried = statistics.median(one.before_ready for one in found) / workload.image
        name = f"{where}, {what}: fetched before ready / image"
        if what == "a bundle":
            _at_most(report, f"{where}, {what}: time / the physical limit", ready / least, LIMIT_GOAL, RUNS)
            _at_most(report, name, carried, SHARE_GOAL, RUNS)
        else:
            report.figure(name=name, value=round(carried, 4), unit="x", runs=RUNS)


def _startable(report: Any, where: str, found: list[Lazy]) -> None:
    startable = statistics.median(one.startable for one in found)
    report.figure(name=f"{where}: startable", value=round(startable, 3), unit="s", runs=len(found))


def _latency(report: Any, folder: Path, slow: ShapedRegistry, workload: Workload) -> None:
    """How many round trips pass before a container can be made from the bundle: with them, less without them."""
    rate, milliseconds = 1000.0, 40
    near, far = list[float](), list[float]()
    for _ in range(LATENCY_RUNS):
        near.append(_started(folder, slow, workload, (rate, 0), "bundle").startable)
        far.append(_started(folder, slow, workload, (rate, milliseconds), "bundle").startable)
    trips = (statistics.median(far) - statistics.median(near)) / (milliseconds / 1000)
    _at_most(report, f"{MAIN}: round trips before the first useful byte", trips, ROUND_TRIPS_GOAL, LATENCY_RUNS)


def _everywhere(report: Any, folder: Path, slow: ShapedRegistry, workloads: list[Workload]) -> None:
    for link in LINKS:
        faster: list[float] = []
        for workload in workloads:
            base = [_pulled(folder, slow, workload.name, link)]
            runs = RUNS_OF_SMALL if base[0] < SMALL_SECONDS else 1
            base += [_pulled(folder, slow, workload.name, link) for _ in range(runs - 1)]
            ready = [_started(folder, slow, workload, link, "bundle").ready for _ in range(runs)]
            ratio = statistics.median(base) / statistics.median(ready)
            name = f"{workload.name} at {link[0]:g} Mbit/s, {link[1]} ms"
            with_what = "a bundle" if workload.bundled else "an index, a bundle not being worth it"
            _at_least(report, f"{name}, {with_what}: times faster", ratio, WORST_GOAL, runs)
            faster.append(ratio)
        mean = math.exp(statistics.fmean(map(math.log, faster)))
        name = f"all workloads at {link[0]:g} Mbit/s, {link[1]} ms: times faster, geometric mean"
        if link[0] <= MAIN_LINK[0]:
            _at_least(report, name, mean, MEAN_GOAL, 1)
        else:
            report.figure(name=name, value=round(mean, 2), unit="x")


def _pulled(folder: Path, slow: ShapedRegistry, workload: str, link: tuple[float, int]) -> float:
    slow.shape(link[0])
    return pulled(folder / "p", f"{slow.address(link[1])}/plain/{workload}:1", workload)


def _started(folder: Path, slow: ShapedRegistry, workload: Workload, link: tuple[float, int], how: str) -> Lazy:
    slow.shape(link[0])
    address = slow.address(link[1])
    repository = "bundle" if how == "bundle" and workload.bundled else "own"
    with place(folder / "l", address, lazy=True) as here:
        assert here.service is not None
        assert workload.profile["platform"] == f"linux/{host_architecture()}"
        if how == "profile":
            here.service.ask("takeProfile", profile=workload.profile)
        return lazily(here, f"{address}/{repository}/{workload.name}:1", workload.name, slow.sent_bytes)


def _at_least(report: Any, name: str, value: float, goal: float, runs: int) -> None:
    report.figure(name=name, value=round(value, 2), unit="x", goal=f">= {goal:g}", holds=value >= goal, runs=runs)


def _at_most(report: Any, name: str, value: float, goal: float, runs: int) -> None:
    report.figure(name=name, value=round(value, 3), unit="x", goal=f"<= {goal:g}", holds=value <= goal, runs=runs)
