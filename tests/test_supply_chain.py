"""What a device installs is locked by hash, complete, and told in a bill of materials."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from requirements.sbom import LOCK, ROOT, bill, locked

TEXT = LOCK.read_text()
MACHINE = re.compile(r"https?://|--index-url|--find-links")


def test_every_dependency_of_a_device_is_locked_and_has_a_hash() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[<>=]", one)[0] for one in wanted} <= set(locked(TEXT))
    blocks = re.split(r"^(?=[a-z0-9-]+==)", TEXT, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(locked(TEXT))
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_lock_names_no_index() -> None:
    assert not MACHINE.search(TEXT)


def test_the_bill_of_materials_has_all_of_it_and_is_always_the_same() -> None:
    made = bill(TEXT)
    assert {one["name"]: one["version"] for one in made["components"]} == locked(TEXT)
    references = {one["bom-ref"] for one in made["components"]} | {made["metadata"]["component"]["bom-ref"]}
    told = {one["ref"] for one in made["dependencies"]}
    assert told == references
    assert {below for one in made["dependencies"] for below in one["dependsOn"]} <= references
    assert bill(TEXT) == made


def pip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def only(tmp_path: Path, package: str) -> Path:
    """A lock of one package."""
    block = re.search(rf"^{package}==.*?(?=^[a-z0-9-]+==|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    path = tmp_path / "one.txt"
    path.write_text(block[0])
    return path


@pytest.mark.timeout(300)
def test_a_device_s_packages_install_by_their_hashes_and_edge_runs_on_them(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    done = pip("install", "--require-hashes", "--only-binary", ":all:", "--target", str(folder), "-r", str(LOCK))
    assert done.returncode == 0, done.stderr
    code = "; ".join(
        (
            f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]",
            "import edge.agent.app, pydantic",
            "print(pydantic.__file__)",
        )
    )
    run = subprocess.run((sys.executable, "-I", "-c", code), capture_output=True, text=True, check=False)
    assert run.stdout.startswith(str(folder)), run.stderr


def test_a_package_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    path = only(tmp_path, "idna")
    target = ("--target", str(tmp_path / "site"), "-r", str(path))
    path.write_text(re.sub(r"sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", path.read_text()))
    done = pip("install", "--require-hashes", "--no-deps", *target)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
