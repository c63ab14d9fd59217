"""The registry and the images that other tests stand on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oci_layout import INDEX, MANIFEST, OciLayout, busybox_image, busybox_layer
from tests.support.registry import Registry

pytestmark = pytest.mark.registry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as running:
        yield running


def test_an_image_that_was_pushed_is_there_with_its_command(registry: Registry) -> None:
    reference = busybox_image(registry, "hello", ["echo", "hello"], files={"etc/motd": b"hi\n"}, Env=["A=b"])
    manifest = registry.get("hello/manifests/1", MANIFEST)
    config = registry.get(f"hello/blobs/{manifest['config']['digest']}")["config"]
    assert reference == f"{registry.address}/hello:1"
    assert config == {"Cmd": ["echo", "hello"], "Env": ["A=b"]}
    assert len(manifest["layers"]) == 2


def test_several_architectures_are_one_image(registry: Registry, tmp_path: Path) -> None:
    layout = OciLayout(tmp_path / "layout")
    layout.finish(*(layout.image([busybox_layer()], {}, arch) for arch in ("amd64", "arm64")))
    digest = layout.push(registry, "both")
    index = registry.get(f"both/manifests/{digest}", INDEX)
    assert [one["platform"]["architecture"] for one in index["manifests"]] == ["amd64", "arm64"]


def test_what_was_pushed_outlives_a_kill(registry: Registry) -> None:
    busybox_image(registry, "hello", ["true"])
    registry.kill()
    registry.start()
    assert registry.get("hello/tags/list") == {"name": "hello", "tags": ["1"]}
