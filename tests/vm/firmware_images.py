"""Image bundles for the machine: one image is built, and others are made of it by a few changed files."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.firmware.image_bundle import write_image_bundle
from edge.fleet.image_signing import ImageKeys, image_keys
from tests.support.runtime_versions import ROOT, build_version

QUICK_CHECK: Final = "[Service]\nEnvironment=EDGE_SLOT_SECONDS=15\n"
_DROP_IN: Final = "/etc/systemd/system/edge-slot-check.service.d"


@dataclass(frozen=True, slots=True)
class Images:
    """Attributes: disk: Version 1.0.0 in slot A. bundles: A disk (ext4) with all bundles."""

    disk: Path
    bundles: Path


def build_images(folder: Path, *, units: Path, cache: Path) -> Images:
    """Build everything the story needs."""
    ours, thief = (image_keys(folder / name, name, datetime.now(UTC)) for name in ("fleet", "thief"))
    wheels = build_version(folder, "0.1.0")
    image = folder / "1.0.0"
    build = (
        str(ROOT / "firmware" / "build.sh"), "--board", "vm", "--arch", "amd64", "--version", "1.0.0",
        "--wheels", str(wheels), "--keyring", str(ours.keyring), "--out", str(image), "--units", str(units),
        "--cache", str(cache), "--data-mib", "512", "--console-login",
    )  # fmt: skip
    subprocess.run(build, check=True)
    return make_bundles(folder, image, ours, thief)


def make_bundles(folder: Path, image: Path, ours: ImageKeys, thief: ImageKeys) -> Images:
    """Make the bundles of an image that is built."""
    bundles = folder / "bundles"
    bundles.mkdir()
    changed(image, bundles / "1.1.0.raucb", ours, "1.1.0", {})
    bad = {"/usr/lib/edge/bad-on-purpose": "", f"{_DROP_IN}/quick.conf": QUICK_CHECK}
    changed(image, bundles / "1.2.0-bad.raucb", ours, "1.2.0", bad)
    # These are refused before anything of them is written: there need not be much of them.
    small(folder / "s1", bundles / "stranger.raucb", thief, "1.9.0", "edge-vm-amd64")
    small(folder / "s2", bundles / "other-board.raucb", ours, "1.9.0", "edge-pi-arm64")
    small(folder / "s3", bundles / "older.raucb", ours, "0.9.0", "edge-vm-amd64")
    disk = folder / "bundles.ext4"
    size = sum(path.stat().st_size for path in bundles.iterdir()) // (1 << 20) * 5 // 4 + 64
    subprocess.run(("truncate", "--size", f"{size}M", str(disk)), check=True)
    subprocess.run(("/usr/sbin/mkfs.ext4", "-q", "-F", "-L", "bundles", "-d", str(bundles), str(disk)), check=True)
    return Images(image / "disk.img", disk)


def changed(image: Path, out: Path, keys: ImageKeys, version: str, files: Mapping[str, str]) -> None:
    """Bundle the image with another version and other files in it; debugfs(8) writes them."""
    folder = image.parent / f"image-{version}"
    folder.mkdir()
    root = folder / "rootfs.ext4"
    subprocess.run(("cp", "--sparse=always", str(image / "rootfs.ext4"), str(root)), check=True)
    for path, content in {"/usr/lib/edge/image-version": f"{version}\n", **files}.items():
        text = folder / "text"
        text.write_text(content)
        for command in (f"mkdir {Path(path).parent}", f"rm {path}", f"write {text} {path}"):
            subprocess.run(("/usr/sbin/debugfs", "-w", "-R", command, str(root)), check=True, capture_output=True)
    (folder / "image.env").write_text(f"COMPATIBLE=edge-vm-amd64\nVERSION={version}\n")
    write_image_bundle(folder, out, keys.certificate, keys.key)
    shutil.rmtree(folder)


def small(folder: Path, out: Path, keys: ImageKeys, version: str, compatible: str) -> None:
    """Bundle bytes that are no file system; RAUC's bundles have more than a block."""
    folder.mkdir()
    (folder / "rootfs.ext4").write_bytes(os.urandom(1 << 20))
    (folder / "image.env").write_text(f"COMPATIBLE={compatible}\nVERSION={version}\n")
    write_image_bundle(folder, out, keys.certificate, keys.key)
