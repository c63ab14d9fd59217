"""What an update fetches when the older image is on the device, beside `podman pull` and beside what has changed.

All images are `numpy-app`, really built by `images/build` from trees that differ as a rebuild's do: one package of the
same files upgraded (a package made with dpkg-deb is unpacked over the tree), 1 % of the bytes changed in files that lie
together, and 1 % in files all over the layer. What has changed, compressed, is what gzip makes of the files that are
others, all together: the least that can be sent of them without knowing what was in their place.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench.cold_starts import READY, Place, place
from tests.support.shaped import ShapedRegistry

NAME = "delta"
ROOT = Path(__file__).resolve().parents[2]
MAIN, MEGABITS = "numpy-app", 50.0
BYTES_GOAL = 1.3
SHARE = 0.01
RUNS = 3
SUITE = "bookworm"
EPOCH = os.environ.get("SOURCE_DATE_EPOCH", "1700000000")
PACKAGE, PACKAGE_FILES = "python3-pandas", "usr/lib/python3/dist-packages/pandas"
TOGETHER = "usr/lib/python3/dist-packages/pip"
ALL_OVER = ("usr/share", "usr/lib/python3/dist-packages/pandas", "usr/lib/python3/dist-packages/pip")
"""Of the image, what its program does not load: changed bytes must not keep it from starting."""
UPDATES = ("one package upgraded", "1 % changed, together", "1 % changed, all over")
_EVERY = 1024
PATIENCE_SECONDS = 60.0


def run(report: Any) -> None:
    """Build, push and update."""
    with tempfile.TemporaryDirectory(prefix="edge-delta-", dir="/var/tmp") as name:
        folder = Path(name)
        with ShapedRegistry(folder / "registry") as slow:
            changed = _push_all(folder, slow)
            for number, update in enumerate(UPDATES, 1):
                _update(report, folder, slow, update, f"{number}", changed[number - 1])


def _push_all(folder: Path, slow: ShapedRegistry) -> list[int]:
    """Push the older image as 0 and the others; return the compressed bytes of what each changed."""
    _build(slow, SUITE, "0")
    base = next((ROOT / "build" / "images").glob(f"debian-python-{SUITE}-*-{EPOCH}.tar"))
    changed = []
    for number, change in enumerate((_upgrade, _change_together, _change_all_over), 1):
        tree = folder / "tree"
        tree.mkdir()
        subprocess.run(("tar", "-xpf", base, "-C", tree), check=True)
        changed.append(_gzip_size(change(tree, folder)))
        suite = f"changed-{number}"
        made = base.with_name(base.name.replace(SUITE, suite, 1))
        try:
            subprocess.run(("tar", "--numeric-owner", "-C", tree, "-cf", made, "."), check=True)
            shutil.rmtree(tree)
            _build(slow, suite, str(number))
        finally:
            made.unlink(missing_ok=True)
    return changed


def _build(slow: ShapedRegistry, suite: str, tag: str) -> None:
    address = slow.registry.address
    options = ("--insecure", "--push", address, "--only", MAIN, "--suite", suite, "--tag", tag)
    subprocess.run((sys.executable, ROOT / "images" / "build", *options), check=True, cwd=ROOT)
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(slow.registries_conf)}
    push = (sys.executable, "-m", "edge", "image", "index", "push", f"{address}/{MAIN}:{tag}", "--for-updates")
    subprocess.run(push, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)


# --- what changes


def _upgrade(tree: Path, folder: Path) -> list[Path]:
    """The next version of a package: its libraries are linked anew, and a line is added to a third of its sources."""
    package = folder / "package"
    shutil.copytree(tree / PACKAGE_FILES, package / PACKAGE_FILES, symlinks=True)
    changed = []
    for path in _files(package):
        if ".so" in path.suffixes:
            _link_anew(path)
        elif path.suffix == ".py" and zlib.crc32(path.name.encode()) % 3 == 0:
            path.write_bytes(path.read_bytes() + b"# Changed by the next version.\n")
        else:
            continue
        changed.append(tree / path.relative_to(package))
    control = package / "DEBIAN" / "control"
    control.parent.mkdir()
    fields = (f"Package: {PACKAGE}", "Version: 1:99", "Architecture: all", "Maintainer: nobody <nobody@example.org>")
    control.write_text("\n".join((*fields, "Description: the next version\n")))
    subprocess.run(("dpkg-deb", "--root-owner-group", "-Znone", "-b", package, folder / "package.deb"), check=True)
    subprocess.run(("dpkg-deb", "-x", folder / "package.deb", tree), check=True)
    shutil.rmtree(package)
    return changed


def _change_together(tree: Path, _folder: Path) -> list[Path]:
    return _changed(list(_files(tree / TOGETHER)), int(SHARE * _size(_files(tree))))


def _change_all_over(tree: Path, _folder: Path) -> list[Path]:
    found = [path for folder in ALL_OVER for path in _files(tree / folder)]
    files = sorted(found, key=lambda path: zlib.crc32(str(path.relative_to(tree)).encode()))
    return _changed(files, int(SHARE * _size(_files(tree))))


def _changed(files: Sequence[Path], size: int) -> list[Path]:
    """Change so many bytes' worth of files; the largest ones, of which one would be all, are passed over."""
    done, changed = 0, []
    for path in files:
        if done < size and 0 < path.stat().st_size <= size // 2:
            _link_anew(path)
            done += path.stat().st_size
            changed.append(path)
    assert done >= size
    return sorted(changed)


def _link_anew(path: Path) -> None:
    """Change a byte here and there, as addresses change."""
    data = bytearray(path.read_bytes())
    for at in range(len(data) % _EVERY // 2, len(data), _EVERY):
        data[at] ^= 0x15
    path.write_bytes(data)


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())


def _size(files: Sequence[Path] | Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in files)


def _gzip_size(files: Sequence[Path]) -> int:
    packer = zlib.compressobj(6, wbits=31)
    return sum(len(packer.compress(path.read_bytes())) for path in files) + len(packer.flush())


# --- what it costs


def _update(  # noqa: PLR0913, PLR0917 - what is updated, and where
    report: Any, folder: Path, slow: ShapedRegistry, update: str, tag: str, changed: int
) -> None:
    slow.shape(MEGABITS)
    old, new = (f"{slow.registry.address}/{MAIN}:{one}" for one in ("0", tag))
    fetched, ready, pulled, took = list[int](), list[float](), list[int](), list[float]()
    for _ in range(RUNS):
        with place(folder / "ours", slow.registry.address, lazy=True) as here:
            _have(here, old)
            before = slow.sent_bytes()
            ready.append(_updated(here, new))
            fetched.append(slow.sent_bytes() - before)
        with place(folder / "podman", slow.registry.address, lazy=False) as here:
            here.podman.run_cli("pull", "--quiet", old)
            before, began = slow.sent_bytes(), time.perf_counter()
            here.podman.run_cli("pull", "--quiet", new)
            pulled.append(slow.sent_bytes() - before)
            took.append(time.perf_counter() - began + here.run(new, READY[MAIN]))
    what = f"update, {update}"
    report.figure(name=f"{what}: compressed bytes that changed", value=round(changed / 1e6, 3), unit="MB")
    ratio = statistics.median(fetched) / changed
    report.figure(
        name=f"{what}: bytes fetched / changed", value=round(ratio, 3), unit="x", goal=f"<= {BYTES_GOAL}",
        holds=ratio <= BYTES_GOAL, runs=RUNS,
    )  # fmt: skip
    for who, bytes_found, seconds in (("edge", fetched, ready), ("podman pull", pulled, took)):
        megabytes = statistics.median(bytes_found) / 1e6
        report.figure(name=f"{what}: {who} fetches", value=round(megabytes, 3), unit="MB", runs=RUNS)
        report.figure(
            name=f"{what}: {who}, ready after", value=round(statistics.median(seconds), 2), unit="s", runs=RUNS
        )


def _have(here: Place, reference: str) -> None:
    """Have the older image, as a device has it that has run it for a while: unpacked, with its recipe."""
    assert here.service is not None
    here.service.wait_for(here.service.prepare(reference)["imageId"], "MATERIALIZED", 300)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all((layer / "recipe").exists() for layer in (here.service.state_dir / "layers").iterdir()):
        assert time.monotonic() < deadline, here.service.log()
        time.sleep(0.1)


def _updated(here: Place, reference: str) -> float:
    """Update, run the new image, wait until all of it is unpacked; return the seconds to the ready line."""
    assert here.service is not None
    began = time.perf_counter()
    image = here.service.prepare(reference)["imageId"]
    startable = time.perf_counter() - began
    ready = startable + here.run(image, READY[MAIN])
    here.service.wait_for(image, "MATERIALIZED", 300)
    return ready
