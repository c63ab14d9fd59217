"""What the image service costs: memory with large images, and the time to index a layer."""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.images.soci.builder import build_layer_index
from edge.images.soci.compact import COMPACT_SPAN_SIZE, pack_ztoc
from edge.images.soci.values import DEFAULT_SPAN_SIZE, Compression, Ztoc
from edge.images.soci.ztoc import write_ztoc
from tests.support.image_service import ImageServiceProcess
from tests.support.oci_layout import OciLayout, host_architecture, layer
from tests.support.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
IMAGES, IMAGE_BYTES, FILES = 5, 300 << 20, 10_000
FILE_BYTES = IMAGE_BYTES // FILES
PSS_GOAL, SPEED_GOAL = 40.0, 0.9
RUNS = 5
QUIET_SECONDS = 50.0
"""The service gives memory back when nothing was read for a while; a fleet's devices are in that state all day."""
_PIECE = 512 * 1024


def run(report: Any) -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory(prefix="edge-lazy-", dir="/var/tmp") as name:
        folder = Path(name)
        with Registry(folder / "registry") as registry:
            references = [_push(folder, registry, number) for number in range(IMAGES)]
            _memory(report, folder, references)
            _index_speed(report, registry)


def _push(folder: Path, registry: Registry, number: int) -> str:
    """An image of one layer: files that do not compress, as media and models do not."""
    noise = random.Random(number)
    tar = layer({f"data/{file // 100:03}/{file % 100:02}": noise.randbytes(FILE_BYTES) for file in range(FILES)})
    layout = OciLayout(folder / f"layout-{number}")
    layout.finish(layout.image([tar], {}, host_architecture()))
    reference = f"{registry.address}/large/{number}:1"
    target = ("--dest-tls-verify=false", f"oci:{layout.folder}:latest", f"docker://{reference}")
    subprocess.run(("skopeo", "copy", "--quiet", *target), check=True)
    conf = folder / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
    subprocess.run(
        (sys.executable, "-m", "edge", "image", "index", "push", reference),
        check=True, cwd=ROOT, env={**os.environ, "CONTAINERS_REGISTRIES_CONF": str(conf)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shutil.rmtree(layout.folder)
    return reference


def _memory(report: Any, folder: Path, references: list[str]) -> None:
    """All stay lazy: hardly anything is fetched in the background. A tenth of each image's files are read."""
    with ImageServiceProcess(folder, folder / "registries.conf", "--background-kib-per-second", "1") as service:
        for reference in references:
            service.prepare(reference)
        first = _pss_megabytes(service.pid)
        for diff in sorted((service.store / "overlay").glob("*/diff")):
            subprocess.run(("sh", "-c", f"cat {diff}/data/*/5?"), check=True, stdout=subprocess.DEVNULL)
        busy = _pss_megabytes(service.pid)
        time.sleep(QUIET_SECONDS)
        quiet = _pss_megabytes(service.pid)
    what = f"image service, {IMAGES} images of {IMAGE_BYTES >> 20} MiB: PSS"
    report.figure(name=f"{what} when they became startable", value=round(first, 1), unit="MB")
    report.figure(name=f"{what} after a tenth of them was read", value=round(busy, 1), unit="MB")
    report.figure(
        name=f"{what} when nobody reads", value=round(quiet, 1), unit="MB", goal=f"<= {PSS_GOAL:g}",
        holds=quiet <= PSS_GOAL,
    )  # fmt: skip


def _pss_megabytes(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0]) * 1024 / 1e6


def _index_speed(report: Any, registry: Registry) -> None:
    """Beside plain zlib inflating the same layer: `numpy-app`'s, as buildah packed it."""
    subprocess.run(
        (sys.executable, str(ROOT / "images" / "build"), "--push", registry.address, "--only", "numpy-app"), check=True
    )
    blobs = [path for path in registry.store.glob("**/blobs/sha256/*/*/data") if path.stat().st_size < IMAGE_BYTES // 2]
    data = max(blobs, key=lambda path: path.stat().st_size).read_bytes()
    pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
    plain, soci, own = list[float](), list[float](), list[float]()
    for _ in range(RUNS):
        plain.append(_timed(lambda: _inflate(pieces)))
        soci.append(_timed(lambda: write_ztoc(_indexed(pieces, DEFAULT_SPAN_SIZE, thin=False))))
        own.append(_timed(lambda: pack_ztoc(write_ztoc(_indexed(pieces, COMPACT_SPAN_SIZE, thin=True)))))
    base = statistics.median(plain)
    report.figure(
        name="plain zlib on numpy-app's layer", value=round(len(data) / base / 1e6, 1), unit="MB/s", runs=RUNS
    )
    for what, took in (("SOCI's, 4 MiB spans", soci), ("ours, 256 KiB spans", own)):
        share = base / statistics.median(took)
        report.figure(
            name=f"index build, {what}: speed / plain zlib's", value=round(share, 3), unit="x", goal=f">= {SPEED_GOAL}",
            holds=share >= SPEED_GOAL, runs=RUNS,
        )  # fmt: skip


def _indexed(pieces: list[bytes], span_size: int, *, thin: bool) -> Ztoc:
    return build_layer_index(pieces, Compression.GZIP, span_size=span_size, thin=thin).ztoc


def _inflate(pieces: list[bytes]) -> None:
    inflater = zlib.decompressobj(31)
    for piece in pieces:
        inflater.decompress(piece)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
