"""The disk is full: what is here is served, what is not comes from the network, and nothing is damaged afterwards."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import StoreError
from tests.support.lazy_rig import TestImage, podman_images, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the service."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=64m", "none", path), check=True)
    yield path
    subprocess.run(("umount", "-l", path), check=True)


def test_reads_are_answered_from_the_network(small: Path, registry: Registry, image: TestImage) -> None:
    with rig(small, registry, "--background-kib-per-second", "1") as made:
        found = made.prepare(image)
        _fill(small)
        made.check(image)
        made.until(lambda: "No space left" in made.notes())
        (small / "filler").unlink()
        made.check(image)
        assert podman_images(made.service.store) == [found["imageId"]]


def test_completion_waits_for_space(small: Path, registry: Registry, image: TestImage) -> None:
    with rig(small, registry, "--background-kib-per-second", "300") as made:
        found = made.prepare(image)
        _fill(small)
        made.until(lambda: made.service.image(found["imageId"])["problem"] != "")
        assert "free on the disk" in made.service.image(found["imageId"])["problem"]
        made.check(image)


def test_an_image_that_does_not_fit_is_refused_and_the_others_stay(
    small: Path, registry: Registry, image: TestImage, plain: TestImage
) -> None:
    with rig(small, registry, "--background-kib-per-second", "1") as made:
        found = made.prepare(image)
        _fill(small)
        with pytest.raises(StoreError):
            made.prepare(plain)
        (small / "filler").unlink()
        made.check(image)
        other = made.prepare(plain)
        made.check(plain)
        assert podman_images(made.service.store) == sorted((found["imageId"], other["imageId"]))


def _fill(folder: Path) -> None:
    with (folder / "filler").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            return
