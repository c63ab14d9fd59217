"""What files cost through FUSE, and through an overlay on it as containers see them.

The bytes lie in the host's page cache. Names and small files are cold in every run: each has a layer of its own that
the kernel has not looked at. The large file is read twice, its pages dropped before each: the first time, which does
not count, also pays for memory that a virtual machine's host gives out on first use. The goals are for FUSE itself; an
overlay asks for an extended attribute of each file besides.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from edge.images.fuse.mount import read_ahead
from edge.images.image_store import chain_ids, link_of
from edge.images.namespace import ServedLayer
from edge.images.soci.values import FileMetadata, FileType
from edge.images.tree import LayerTree, write_tree
from tests.support.lazy_image import LazyStore, TarContent, lazy_store

RUNS = 5
LARGE_BYTES = 512 << 20
SMALL_FILES, SMALL_BYTES = 5_000, 4096
FIND_FOLDERS, FIND_FILES = 1_000, 99
FIND_ENTRIES = FIND_FOLDERS * (FIND_FILES + 1)
SEQUENTIAL_GOAL, SMALL_GOAL, FIND_GOAL = 1.0, 5_000, 3.0
WORK_SECONDS = 300

_SEQUENTIAL = """
import json, os, sys, time
file = os.open(sys.argv[1] + "/large", os.O_RDONLY)
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
buffer, count = bytearray(1 << 20), 0
began = time.perf_counter()
while got := os.readv(file, (buffer,)):
    count += got
print(json.dumps([time.perf_counter() - began, count]))
"""
_SMALL = """
import json, os, sys, time
count = 0
began = time.perf_counter()
for number in range(5_000):
    file = os.open(f"{sys.argv[1]}/small/{number}", os.O_RDONLY)
    count += len(os.read(file, 8192))
    os.close(file)
print(json.dumps([time.perf_counter() - began, count]))
"""
_FIND = """
import json, subprocess, sys, time
began = time.perf_counter()
found = subprocess.run(("find", sys.argv[1] + "/find", "-mindepth", "1", "-size", "-9", "-printf", "."),
    capture_output=True, check=True)
print(json.dumps([time.perf_counter() - began, len(found.stdout)]))
"""


def run(report: Any) -> None:
    """Measure, and report."""
    with tempfile.TemporaryDirectory() as name, lazy_store(Path(name)) as store:
        layers = iter(_layers(store, Path(name), 2 * RUNS))
        _measure(report, "FUSE", lambda: _plain(next(layers)), goals=True)
        _measure(report, "an overlay on FUSE", lambda: _overlay(next(layers)), goals=False)


def _measure(report: Any, through: str, view: Callable[[], AbstractContextManager[Path]], *, goals: bool) -> None:
    times: list[tuple[float, float, float]] = []
    for _ in range(RUNS):
        with view() as root:
            _timed(_SEQUENTIAL, root, LARGE_BYTES)
            read = _timed(_SEQUENTIAL, root, LARGE_BYTES)
            small = _timed(_SMALL, root, SMALL_FILES * SMALL_BYTES)
            times.append((read, small, _timed(_FIND, root, FIND_ENTRIES)))
    read, small, find = (statistics.median(column) for column in zip(*times, strict=True))
    rate, files = LARGE_BYTES / read / 1e9, SMALL_FILES / small
    rows = (
        (f"sequential read through {through}", rate, "GB/s", f">= {SEQUENTIAL_GOAL}", rate >= SEQUENTIAL_GOAL),
        (f"open and read 4 KiB files through {through}", files, "1/s", f">= {SMALL_GOAL}", files >= SMALL_GOAL),
        (f"find over {FIND_ENTRIES} entries through {through}", find, "s", f"<= {FIND_GOAL}", find <= FIND_GOAL),
    )
    for what, value, unit, goal, holds in rows:
        meant = {"goal": goal, "holds": holds} if goals else {}
        report.figure(name=what, value=round(value, 3), unit=unit, runs=RUNS, **meant)


def _timed(work: str, root: Path, expected: int) -> float:
    """Work in a process of its own; return its seconds, once it has done what it should."""
    command = (sys.executable, "-I", "-S", "-c", work, str(root))
    done = subprocess.run(command, capture_output=True, check=True, timeout=WORK_SECONDS)
    seconds, count = json.loads(done.stdout)
    assert count == expected, (count, expected)
    return float(seconds)


@contextmanager
def _plain(layer: Path) -> Iterator[Path]:
    yield layer


@contextmanager
def _overlay(layer: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        parts = [Path(name) / part for part in ("upper", "work", "merged")]
        for part in parts:
            part.mkdir()
        upper, work, merged = parts
        options = f"lowerdir={layer},upperdir={upper},workdir={work}"
        subprocess.run(("mount", "-t", "overlay", "overlay", "-o", options, merged), check=True)
        try:
            yield merged
        finally:
            subprocess.run(("umount", "-l", merged), check=True)


def _layers(store: LazyStore, folder: Path, count: int) -> list[Path]:
    """Serve the same files as so many layers, and return where their files are seen."""
    content, tree = folder / "content", folder / "tree"
    with content.open("wb") as file:
        for number in range(LARGE_BYTES >> 20):
            file.write(number.to_bytes(4, "little") * (1 << 18))
    write_tree(tree, _members())
    ids = chain_ids(f"sha256:{number:064x}" for number in range(count))
    source = TarContent(content)
    for slot, layer_id in enumerate(ids, 1):
        store.namespace.add(ServedLayer(slot, layer_id, link_of(layer_id), (), LayerTree(tree), source))
    read_ahead(store.root / "overlay")
    return [store.root / "overlay" / layer_id / "diff" for layer_id in ids]


def _members() -> Iterator[FileMetadata]:
    yield FileMetadata("large", FileType.REGULAR, 0, LARGE_BYTES, mode=0o644)
    for number in range(SMALL_FILES):
        yield FileMetadata(f"small/{number}", FileType.REGULAR, number * SMALL_BYTES, SMALL_BYTES, mode=0o644)
    for folder in range(FIND_FOLDERS):
        for number in range(FIND_FILES):
            yield FileMetadata(f"find/{folder}/{number}", FileType.REGULAR, 0, 1, mode=0o644)
