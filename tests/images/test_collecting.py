"""Images go when the disk is nearly full: no more than are needed, the oldest first, and none that a task needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.images.image_store import ImageRecord, LayerRecord
from edge.images.oci.client import RegistryClient
from edge.images.oci.registries import Registries
from edge.images.service import ImageService

GIB = 1 << 30


class Device:
    """A service with images of one layer each, on a disk that is as full as they make it.

    Attributes:
        free: What is free of it when there are no images.
    """

    def __init__(self, folder: Path, size: int, each: int) -> None:
        self.service = ImageService(folder, RegistryClient(Registries(()), {}))
        self.size, self.each, self.free = size, each, size

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            layer = LayerRecord(f"{number:064x}", "", "sha256:0", 1, f"sha256:{number:064x}", 1, 2, "")
            image = ImageRecord(f"{number + 1000:064x}", f"sha256:{number:064x}", (), layer.layer_id, "")
            self.service._store.publish(image, (layer,), b"{}", b"{}")

    def protect(self, *numbers: int) -> None:
        self.service.protect([f"{number + 1000:064x}" for number in numbers])

    @property
    def images(self) -> list[int]:
        return [int(image.image_id, 16) - 1000 for image in self.service._store.images()]

    def space(self, _: Path) -> tuple[int, int]:
        return self.free - self.each * len(self.images), self.size


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Device]:
    def make(**numbers: Any) -> Device:
        made = Device(tmp_path, **numbers)
        monkeypatch.setattr("edge.images.service.free_bytes", made.space)
        made.publish(1, 2, 3, 4, 5, 6)
        return made

    return make


def test_nothing_goes_while_a_tenth_is_free(device: Callable[..., Device]) -> None:
    large = device(size=100 * GIB, each=2 * GIB)
    large.free = (10 + 6 * 2) * GIB
    large.service.collect()
    assert large.images == [1, 2, 3, 4, 5, 6]


def test_the_oldest_go_until_there_is_half_as_much_again(device: Callable[..., Device]) -> None:
    large = device(size=100 * GIB, each=2 * GIB)
    large.free = (9 + 6 * 2) * GIB
    large.service.collect()
    assert large.images == [4, 5, 6], "9 GiB were free, 15 are"
    large.service.collect()
    assert large.images == [4, 5, 6]


def test_what_a_task_needs_stays_and_the_search_ends(device: Callable[..., Device]) -> None:
    full = device(size=100 * GIB, each=2 * GIB)
    full.free = 6 * 2 * GIB
    full.protect(1, 3)
    full.service.collect()
    assert full.images == [1, 3]


def test_a_small_disk_has_what_completion_leaves_alone(device: Callable[..., Device]) -> None:
    """Completion waits when 256 MiB are free; of 2 GiB that is more than a tenth."""
    small = device(size=2 * GIB, each=100 << 20)
    small.free = (250 << 20) + 6 * small.each
    small.service.collect()
    assert small.images == [3, 4, 5, 6]


def test_the_image_that_was_just_asked_for_is_not_collected_in_the_background(device: Callable[..., Device]) -> None:
    full = device(size=100 * GIB, each=2 * GIB)
    full.free = 11 * GIB
    full.service._unfinished()
    assert full.images == [6]
    full.service.collect()
    assert full.images == [], "but it makes room for the next"


def test_none_goes_for_nothing_while_another_is_made(device: Callable[..., Device]) -> None:
    """Its layers look like nobody's until it is published, so none are removed then."""
    full = device(size=100 * GIB, each=2 * GIB)
    full.free = 6 * 2 * GIB
    full.service._preparing = 1
    full.service.collect()
    assert full.images == [1, 2, 3, 4, 5, 6]
