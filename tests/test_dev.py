"""The scripts that are typed first."""

import os
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_SCRIPTS = ("dev", ".ci/run", "ansible/offline-site", "images/sensor/sensor", "images/web/web")


def dev(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (_ROOT / "dev", *arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


@pytest.mark.parametrize("script", _SCRIPTS)
def test_a_script_is_clean(script: str) -> None:
    done = subprocess.run(("shellcheck", _ROOT / script), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(_ROOT / script, os.X_OK) or script.startswith("images/")


def test_dev_alone_lists_the_tasks() -> None:
    done = dev()
    assert done.returncode == 0
    for task in ("demo", "test", "check", "bench", "soak", "vm-test"):
        assert f"./dev {task}" in done.stdout


def test_an_unknown_task_lists_the_tasks_and_fails() -> None:
    done = dev("demonstrate")
    assert done.returncode == 1
    assert "there is no task 'demonstrate'" in done.stderr
    assert "./dev demo" in done.stderr


def test_the_second_set_up_installs_nothing() -> None:
    first, done = dev("setup"), dev("setup")
    assert first.returncode == done.returncode == 0, first.stderr
    assert done.stderr == "dev: everything is in place\n"


def test_a_host_without_apt_is_told_so(tmp_path: Path) -> None:
    for name in ("dirname", "id"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    script = (_ROOT / "dev").read_text().replace('export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"', "")
    assert "/usr/sbin:/sbin" not in script
    (tmp_path / "dev").write_text(script)
    done = subprocess.run(
        ("/bin/sh", tmp_path / "dev", "check"), env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "this host has no apt" in done.stderr
