"""An image and its next version, of which most is the same, on a device that has the older one."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from edge import cli
from edge.images.delta.building import RecipeBuilder
from edge.images.delta.cutting import Chunk
from edge.images.indexing import build
from tests.support.lazy_rig import SPAN_SIZE, Rig, TestImage, content, push_image, rig, write_registries
from tests.support.registry import Registry

CHANGED: Final = "data/05"
FOR_UPDATES: Final = ("--for-updates",)
OLD: Final = content(1)
NEW: Final = {
    **OLD,
    CHANGED: content(95, 6)[CHANGED],
    "data/12": OLD["data/12"][:50_000] + b"inserted\n" + OLD["data/12"][50_000:],
    "data/30": content(96, 1)["data/00"],
}


_pushed: dict[tuple[str, str, str], TestImage] = {}


def push_once(registry: Registry, repository: str, tag: str, files: Mapping[str, bytes]) -> TestImage:
    """Push an image with its index, once for all tests."""
    key = (registry.address, repository, tag)
    if key not in _pushed:
        _pushed[key] = push_image(registry, repository, [files], tag=tag, options=FOR_UPDATES)
    return _pushed[key]


def push_newer(registry: Registry) -> TestImage:
    """The newer image, with a true recipe."""
    return push_once(registry, "updated", "new", NEW)


@contextmanager
def updated(folder: Path, registry: Registry, new: TestImage, *arguments: str) -> Iterator[tuple[Rig, TestImage]]:
    """A device that has the older image, unpacked and with its recipe; arguments go to its service."""
    older = push_once(registry, new.name.partition(":")[0], "old", OLD)
    with rig(folder, registry, *arguments) as made:
        found = made.prepare(older)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 120)
        recipe = made.service.state_dir / "layers" / older.layer_ids[0] / "recipe"
        made.until(recipe.exists)
        yield made, older


def fetched_bytes(made: Rig) -> int:
    """Compressed bytes that the last update fetched, as the service's notes tell."""
    line = [one for one in made.notes().splitlines() if "compressed ones were fetched" in one][-1]
    return int(line.partition("older images, ")[2].split()[0])


def push_false(
    monkeypatch: pytest.MonkeyPatch, registry: Registry, repository: str, lie: Callable[[Chunk], Chunk]
) -> TestImage:
    """Push the newer image with a recipe whose chunks are what `lie` makes of them."""

    class Liar(RecipeBuilder):
        def _add(self, chunk: Chunk) -> None:
            super()._add(lie(chunk))

    image = push_image(registry, repository, [NEW], index="", tag="new")
    monkeypatch.setattr(build, "RecipeBuilder", Liar)
    push_in_process(monkeypatch, registry, f"{registry.address}/{image.name}")
    return image


def push_in_process(monkeypatch: pytest.MonkeyPatch, registry: Registry, reference: str) -> None:
    """`edge image index push`, with what the test has put in the place of its parts."""
    conf = registry.store.parent / "push.conf"
    write_registries(conf, registry.address)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    options = ("--span-size", str(SPAN_SIZE), "--min-layer-size", "0", *FOR_UPDATES)
    assert cli.main(("image", "index", "push", reference, *options)) == 0, sys.stderr


def settled(made: Rig, image: TestImage, found: Any) -> None:
    """Read while it fills, wait until it is unpacked, and read again: every byte is what it was built of."""
    made.check(image)
    made.service.wait_for(found["imageId"], "MATERIALIZED", 120)
    made.check(image)
