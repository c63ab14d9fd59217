"""Bundles of OS images, for RAUC: made, recognised and installed by RAUC's own program.

https://rauc.readthedocs.io/en/latest/reference.html#manifest
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge.errors import EdgeError, InvalidInputError, NotFoundError, RefusedError
from edge.files import store_error

_SQUASHFS: Final = b"hsqs"
"""The first bytes of a RAUC bundle: linux/Documentation/filesystems/squashfs."""
ALLOW_DOWNGRADE: Final = Path("/run/edge-allow-downgrade")


def is_image_bundle(path: Path) -> bool:
    """Return whether a file looks like a RAUC bundle.

    Raises:
        NotFoundError: There is none.
        StoreError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(_SQUASHFS)) == _SQUASHFS
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {path}") from error
    except OSError as error:
        raise store_error(f"cannot read {path}", error) from error


def read_image_facts(folder: Path) -> dict[str, str]:
    """Return what `firmware/build.sh` says of the image it made.

    Raises:
        NotFoundError: There is no image in the folder.
    """
    path = folder / "image.env"
    if not path.exists() or not (folder / "rootfs.ext4").exists():
        raise NotFoundError(f"{folder} holds no image", hint="`edge firmware build` makes one.")
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def write_image_bundle(image: Path, out: Path, certificate: Path, key: Path) -> None:
    """Sign the root file system in a folder, and a Pi's boot files with it.

    Raises:
        RefusedError: There is such a file.
        EdgeError: RAUC does not do it.
    """
    if out.exists():
        raise RefusedError(f"{out} exists already", hint="Name another file with --out.")
    facts = read_image_facts(image)
    files = {"rootfs": "rootfs.ext4"} | ({"bootfs": "boot-a.vfat"} if (image / "boot-a.vfat").exists() else {})
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".bundle-") as name:
        content = Path(name, "content")
        content.mkdir()
        for file in files.values():
            (content / file).hardlink_to(image / file)
        (content / "manifest.raucm").write_text(_manifest(facts, files))
        # At the end of its name the bundle appears whole.
        made = Path(name, "made.raucb")
        options = (f"--cert={certificate}", f"--key={key}", "--mksquashfs-args=-comp zstd -Xcompression-level 6")
        _rauc("bundle", *options, str(content), str(made))
        made.replace(out)


def _manifest(facts: Mapping[str, str], files: Mapping[str, str]) -> str:
    sections = [f"[update]\ncompatible={facts['COMPATIBLE']}\nversion={facts['VERSION']}", "[bundle]\nformat=verity"]
    sections += [f"[image.{slot}]\nfilename={file}" for slot, file in files.items()]
    return "\n\n".join(sections) + "\n"


def install_image(path: Path, *, allow_downgrade: bool) -> None:
    """Write a bundle into the other slot and let the next boot be of it; what runs is not touched.

    Raises:
        RefusedError: RAUC refuses it: signature, board, version.
        EdgeError: It could not be written.
    """
    if allow_downgrade:
        ALLOW_DOWNGRADE.touch()
    try:
        _rauc("install", str(path))
    finally:
        ALLOW_DOWNGRADE.unlink(missing_ok=True)


def image_status() -> dict[str, Any] | None:
    """Return RAUC's own words on the slots; None on a device without RAUC's configuration."""
    if shutil.which("rauc") is None or not Path("/etc/rauc/system.conf").exists():
        return None
    try:
        found = json.loads(_rauc("status", "--output-format=json"))
    except ValueError as error:
        raise EdgeError(f"rauc status does not answer in JSON: {error}") from error
    return dict(found)


def _rauc(*arguments: str) -> str:
    program = shutil.which("rauc")
    if program is None:
        raise NotFoundError("rauc is not installed", hint="apt install rauc; on a device, an image of `edge` has it.")
    done = subprocess.run(  # noqa: S603 - the distribution's
        (program, *arguments), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return done.stdout
    words = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    # The service's own reason, else the program's, which is its last word on stderr.
    text = next((line for line in words if "LastError" in line), words[-1] if words else str(done.returncode))
    refused = ("signature", "verif", "compatible", "older than", "Not trusted", "pre-install")
    if any(word in line for word in refused for line in words):
        raise RefusedError(f"rauc {arguments[0]}: {text}")
    if "appears not to be a bundle" in text:
        raise InvalidInputError(f"rauc {arguments[0]}: {text}")
    raise EdgeError(f"rauc {arguments[0]}: {text}")
