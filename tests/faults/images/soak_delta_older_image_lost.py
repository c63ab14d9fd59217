"""The older image is damaged, removed or only half here: what it does not have is fetched, nothing wrong is shown."""

from pathlib import Path

import pytest

from tests.support.lazy_rig import push_image, rig
from tests.support.registry import Registry
from tests.support.updates import FOR_UPDATES, OLD, fetched_bytes, push_newer, push_once, settled, updated

pytestmark = [pytest.mark.registry, pytest.mark.timeout(300)]

SLOW = ("--background-kib-per-second", "60")


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x04]))


def test_a_bit_of_its_files_has_flipped(tmp_path: Path, registry: Registry) -> None:
    image = push_newer(registry)
    with updated(tmp_path, registry, image) as (made, older):
        unpacked = made.service.state_dir / "unpacked" / older.layer_ids[0]
        for name in ("data/02", "data/20"):
            _flip(unpacked / name, 60_000)
        settled(made, image, made.prepare(image))


def test_a_bit_flips_after_it_was_looked_at(tmp_path: Path, registry: Registry) -> None:
    image = push_newer(registry)
    with updated(tmp_path, registry, image, *SLOW) as (made, older):
        found = made.prepare(image)
        assert made.read(made.path(image, "data/00")) == OLD["data/00"]
        _flip(made.service.state_dir / "unpacked" / older.layer_ids[0] / "data/00", 40_000)
        settled(made, image, found)


def test_it_is_removed_meanwhile(tmp_path: Path, registry: Registry) -> None:
    image = push_newer(registry)
    with updated(tmp_path, registry, image, *SLOW) as (made, older):
        found = made.prepare(image)
        assert made.read(made.path(image, "data/00")) == OLD["data/00"]
        made.service.ask("remove", image=f"{made.proxy.address}/{older.name}")
        assert not (made.service.state_dir / "unpacked" / older.layer_ids[0]).exists()
        settled(made, image, found)


def test_it_is_only_partly_here(tmp_path: Path, registry: Registry) -> None:
    image = push_newer(registry)
    older = push_once(registry, "updated", "old", OLD)
    with rig(tmp_path, registry, *SLOW) as made:
        found = made.prepare(older)
        made.service.wait_for_bytes(found["imageId"], found["size"] // 2)
        found = made.prepare(image)
        settled(made, image, found)
        assert fetched_bytes(made) < found["size"]


def test_a_layer_that_is_the_same_on_another_base_is_not_fetched(tmp_path: Path, registry: Registry) -> None:
    top = {"top/large": OLD["data/01"], "top/other": OLD["data/02"]}
    old = push_image(registry, "rebased", [{"base": b"1" * 3000}, top], tag="old", options=FOR_UPDATES)
    new = push_image(registry, "rebased", [{"base": b"2" * 3000}, top], tag="new", options=FOR_UPDATES)
    assert old.layer_ids[1] != new.layer_ids[1]
    with rig(tmp_path, registry) as made:
        found = made.prepare(old)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 120)
        settled(made, new, made.prepare(new))
        lines = [one for one in made.notes().splitlines() if "are in older images" in one]
        assert any(" 0 of " in one for one in lines), lines
