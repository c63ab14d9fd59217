"""The power goes: what was written and not synced is lost or torn. Each loss is made by hand, while no service runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.lazy_rig import Rig, TestImage, podman_images, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


def _folder(made: Rig, image: TestImage) -> Path:
    return made.service.state_dir / "layers" / image.layer_ids[0]


def _zero_the_blob(made: Rig, image: TestImage) -> None:
    blob = _folder(made, image) / "blob"
    size = blob.stat().st_size
    with blob.open("r+b") as file:
        file.seek(size // 4)
        file.write(bytes(size // 2))


def _shorten_the_blob(made: Rig, image: TestImage) -> None:
    blob = _folder(made, image) / "blob"
    with blob.open("r+b") as file:
        file.truncate(blob.stat().st_size // 2)


def _lose_the_map(made: Rig, image: TestImage) -> None:
    (_folder(made, image) / "blob.map").unlink()


def _claim_everything(made: Rig, image: TestImage) -> None:
    path = _folder(made, image) / "blob.map"
    path.write_bytes(b"\x01" * path.stat().st_size)


def _tear_the_tree(made: Rig, image: TestImage) -> None:
    path = _folder(made, image) / "tree"
    path.write_bytes(path.read_bytes()[:100])


def _empty_the_spans(made: Rig, image: TestImage) -> None:
    (_folder(made, image) / "spans").write_bytes(b"")


def _tear_the_facts(made: Rig, image: TestImage) -> None:
    (_folder(made, image) / "layer.json").write_bytes(b'{"layer_id": "')


def _lose_the_layer(made: Rig, image: TestImage) -> None:
    for path in _folder(made, image).iterdir():
        path.unlink()


HARMLESS = (_zero_the_blob, _shorten_the_blob, _lose_the_map, _claim_everything)
FATAL = (_tear_the_tree, _empty_the_spans, _tear_the_facts, _lose_the_layer)


@pytest.mark.parametrize("loss", HARMLESS)
def test_bytes_that_were_lost_are_fetched_again(
    tmp_path: Path, registry: Registry, image: TestImage, loss: Callable[[Rig, TestImage], None]
) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "400") as made:
        found = made.prepare(image)
        made.service.wait_for_bytes(found["imageId"], found["size"] // 2)
        made.service.kill()
        loss(made, image)
        made.service.start()
        made.check(image)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 90)
        made.check(image)
        assert podman_images(made.service.store) == [found["imageId"]]


@pytest.mark.parametrize("loss", FATAL)
def test_a_layer_that_cannot_be_understood_any_more_is_had_anew_and_its_images_with_it(
    tmp_path: Path, registry: Registry, image: TestImage, plain: TestImage, loss: Callable[[Rig, TestImage], None]
) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "400") as made:
        made.prepare(image)
        other = made.prepare(plain)
        made.service.kill()
        loss(made, image)
        made.service.start()
        assert podman_images(made.service.store) == [other["imageId"]], "the store is sound"
        made.check(plain)
        found = made.prepare(image)
        made.check(image)
        assert podman_images(made.service.store) == sorted((found["imageId"], other["imageId"]))


def test_halves_beside_the_store_s_files_do_not_matter(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(image)
        made.service.kill()
        for path in sorted(made.service.store.glob("overlay-*/*.json")):
            (path.parent / f".{path.name}.0123456789ab.tmp").write_bytes(path.read_bytes()[:20])
        (made.service.state_dir / "unpacked" / f"{image.layer_ids[0]}.new").mkdir(exist_ok=True)
        (made.service.state_dir / "unpacked" / f"{image.layer_ids[0]}.new" / "half").write_bytes(b"h")
        (made.service.state_dir / "layers" / f"{'0' * 64}.new").mkdir()
        made.service.start()
        made.check(image)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        made.check(image)
        assert podman_images(made.service.store) == [found["imageId"]]


def test_the_store_s_lists_never_name_what_is_not_there(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        layers = json.loads((made.service.store / "overlay-layers" / "layers.json").read_bytes())
        assert {one["id"] for one in layers} == set(image.layer_ids)
        made.service.kill()
        (made.service.store / "overlay-images" / "images.json").write_bytes(b"")
        made.service.start()
        assert podman_images(made.service.store) == []
        found = made.prepare(image)
        made.check(image)
        assert podman_images(made.service.store) == [found["imageId"]]
