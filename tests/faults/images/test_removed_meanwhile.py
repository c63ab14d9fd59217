"""An image is removed while something is done with it: nothing of it stays, and it can be had again."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.narrow_link import NarrowLink
from tests.support.oci_layout import layer
from tests.support.registry import Registry
from tests.support.served_images import PushedImage, ServedImages, push_indexed, served_images

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]

FAST = 100e6
SMALL_FILES = 4000
FILES = {
    **{f"data/{number:02}": random.Random(number).randbytes(100 << 10) for number in range(10)},
    **{f"small/{number}": str(number).encode() for number in range(SMALL_FILES)},
}
LARGE = [name for name in FILES if name.startswith("data/")]


@dataclass(frozen=True, slots=True)
class World:
    """A service behind a link, and an image in the registry."""

    images: ServedImages
    link: NarrowLink
    image: PushedImage

    def nothing_is_left(self) -> bool:
        """No file of a layer, whole or half."""
        return not [*self.images.state_dir.glob("layers/*"), *self.images.state_dir.glob("unpacked/*")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with (
        Registry(tmp_path / "registry") as registry,
        NarrowLink(registry.port, FAST) as link,
        served_images(tmp_path, link.address) as images,
    ):
        yield World(images, link, push_indexed(registry, "removed", layer(FILES)))


def test_while_it_is_unpacked(world: World) -> None:
    found = world.images.prepare(world.image)
    half = world.images.state_dir / "unpacked" / f"{world.image.layer_id}.new"
    world.images.until(half.exists)
    world.images.remove(found["imageId"])
    world.images.until(world.nothing_is_left)
    world.images.prepare(world.image)
    assert world.images.read(world.image, *LARGE) == b"".join(FILES[name] for name in LARGE)


def test_while_it_is_fetched(world: World) -> None:
    world.link.bytes_per_second = 200 << 10
    found = world.images.prepare(world.image)
    world.images.until(lambda: world.images.image(found["imageId"])["here"] > 0)
    world.images.remove(found["imageId"])
    world.images.until(world.nothing_is_left)
    world.link.bytes_per_second = FAST
    world.images.prepare(world.image)
    assert world.images.read(world.image, *LARGE) == b"".join(FILES[name] for name in LARGE)


def test_while_it_is_read(world: World) -> None:
    """Whoever reads gets right bytes or an error, and no reader stays."""
    found = world.images.prepare(world.image)
    world.link.bytes_per_second = 300 << 10
    reader = world.images.start_reading(world.image, *LARGE)
    world.images.until(lambda: world.images.image(found["imageId"])["here"] > 0)
    world.images.remove(found["imageId"])
    world.link.bytes_per_second = FAST
    output, problem = reader.communicate(timeout=60)
    whole = b"".join(FILES[name] for name in LARGE)
    assert output == whole or (problem and _is_cut_out_of(output, whole))
    world.images.until(world.nothing_is_left)


def _is_cut_out_of(found: bytes, whole: bytes) -> bool:
    """`cat` goes on with the next file after an error: every page it brought is there, in the same order."""
    at = 0
    for start in range(0, len(found), 4096):
        at = whole.find(found[start : start + 4096], at)
        if at < 0:
            return False
    return True
