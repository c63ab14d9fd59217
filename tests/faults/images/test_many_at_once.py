"""Many images are asked for at the same moment, as after a reboot: each shows its own files."""

import json
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.oci_layout import layer
from tests.support.registry import Registry
from tests.support.served_images import push_indexed, served_images

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]

COUNT = 24


def _files(seed: int) -> Mapping[str, bytes]:
    return {"same/name": random.Random(seed).randbytes(4096)}


def test_each_layer_has_a_number_of_its_own_and_its_own_bytes(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry, served_images(tmp_path, registry.address) as made:
        images = [push_indexed(registry, f"many/{seed}", layer(_files(seed))) for seed in range(COUNT)]
        with ThreadPoolExecutor(COUNT) as pool:
            found = list(pool.map(made.prepare, images))
        assert sorted(made.image_ids()) == sorted(one["imageId"] for one in found)
        facts = [json.loads(path.read_bytes()) for path in made.state_dir.glob("layers/*/layer.json")]
        assert len({one["slot"] for one in facts}) == COUNT
        for seed, image in enumerate(images):
            assert made.read(image, "same/name") == _files(seed)["same/name"]
