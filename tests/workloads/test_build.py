"""`images/build` on a real registry."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oci_layout import INDEX
from tests.support.registry import Registry

pytestmark = pytest.mark.registry
_BUILD = Path(__file__).resolve().parents[2] / "images" / "build"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as running:
        yield running


def build(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run((sys.executable, _BUILD, *arguments), capture_output=True, text=True, check=False)


def test_the_small_images_have_the_same_digest_each_time(registry: Registry) -> None:
    first, second = (build("--push", registry.address, "--only", "sensor,web") for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert [line.split()[0] for line in first.stdout.splitlines()] == [
        f"{registry.address}/sensor:1",
        f"{registry.address}/web:1",
    ]


def test_one_image_is_for_both_architectures(registry: Registry) -> None:
    done = build("--push", registry.address, "--only", "sensor", "--arch", "amd64,arm64", "--tag", "both")
    assert done.returncode == 0, done.stderr
    index = registry.get("sensor/manifests/both", INDEX)
    assert [one["platform"] for one in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux"},
    ]


def test_an_unknown_image_is_refused_by_name() -> None:
    done = build("--push", "127.0.0.1:1", "--only", "sensors")
    assert done.returncode == 2
    assert "'sensors' is none of sensor, web, numpy-app" in done.stderr


def test_a_registry_that_is_away_is_said_clearly() -> None:
    done = build("--push", "127.0.0.1:1", "--only", "sensor")
    assert done.returncode == 1
    assert "images/build: buildah failed" in done.stderr
    assert "connection refused" in done.stderr
