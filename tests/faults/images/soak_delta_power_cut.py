"""The power goes or the disk fills up in the middle of an update: it goes on, or the layer is had anew."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.lazy_rig import Rig, TestImage, podman_images
from tests.support.registry import Registry
from tests.support.updates import NEW, push_newer, settled, updated

pytestmark = [pytest.mark.registry, pytest.mark.timeout(300)]

SLOW = ("--background-kib-per-second", "30")


def _folder(made: Rig, image: TestImage) -> Path:
    return made.service.state_dir / "layers" / image.layer_ids[0]


def _lose_the_map(made: Rig, image: TestImage) -> None:
    (_folder(made, image) / "blob.map").unlink()


def _claim_everything(made: Rig, image: TestImage) -> None:
    path = _folder(made, image) / "blob.map"
    path.write_bytes(b"\x01" * path.stat().st_size)


def _forget_the_older(made: Rig, image: TestImage) -> None:
    (_folder(made, image) / "older").unlink()


def _zero_everything(made: Rig, image: TestImage) -> None:
    """Headers too, which no chunk's digest covers."""
    path = _folder(made, image) / "blob"
    path.write_bytes(bytes(path.stat().st_size))


def _tear_the_chunks(made: Rig, image: TestImage) -> None:
    path = _folder(made, image) / "chunks"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("loss", [_lose_the_map, _claim_everything, _forget_the_older, _zero_everything])
def test_the_update_comes_to_its_end(
    tmp_path: Path, registry: Registry, loss: Callable[[Rig, TestImage], None]
) -> None:
    image = push_newer(registry)
    with updated(tmp_path, registry, image, *SLOW) as (made, _):
        found = made.prepare(image)
        assert made.read(made.path(image, "data/05")) == NEW["data/05"]
        made.service.kill()
        loss(made, image)
        made.service.start()
        settled(made, image, found)


def test_a_layer_whose_chunks_are_torn_is_had_anew(tmp_path: Path, registry: Registry) -> None:
    image = push_newer(registry)
    with updated(tmp_path, registry, image, *SLOW) as (made, _):
        found = made.prepare(image)
        made.service.kill()
        _tear_the_chunks(made, image)
        made.service.start()
        assert found["imageId"] not in podman_images(made.service.store)
        settled(made, image, made.prepare(image))


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the service, larger than what is left alone."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=320m", "none", path), check=True)
    yield path
    subprocess.run(("umount", "-l", path), check=True)


def test_on_a_full_disk_reads_are_answered_and_the_rest_waits(small: Path, registry: Registry) -> None:
    image = push_newer(registry)
    with updated(small, registry, image, *SLOW) as (made, _):
        found = made.prepare(image)
        with (small / "filler").open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            except OSError:
                pass
        made.check(image)
        made.until(lambda: made.service.image(found["imageId"])["problem"] != "")
        (small / "filler").unlink()
        made.check(image)
        made.service.kill()
        made.service.start()
        settled(made, image, found)
