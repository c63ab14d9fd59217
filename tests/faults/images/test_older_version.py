"""A state directory that another version has left, or that somebody has put back from a backup in parts."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oci_layout import layer
from tests.support.registry import Registry
from tests.support.served_images import PushedImage, ServedImages, push_indexed, served_images

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]

ONE, OTHER = (
    {f"data/{number:02}": random.Random(seed + number).randbytes(60 << 10) for number in range(12)} for seed in (0, 100)
)
REFUSED = 5
DAMAGED = 1


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def one(registry: Registry) -> PushedImage:
    return push_indexed(registry, "one", layer(ONE))


@pytest.fixture(scope="module")
def other(registry: Registry) -> PushedImage:
    return push_indexed(registry, "other", layer(OTHER))


@pytest.fixture
def made(tmp_path: Path, registry: Registry) -> Iterator[ServedImages]:
    with served_images(tmp_path, registry.address) as running:
        yield running


def _facts(made: ServedImages, image: PushedImage) -> Path:
    return made.state_dir / "layers" / image.layer_id / "layer.json"


@pytest.mark.parametrize("text", ["", "null", "[]", '"1"', "1.5", "\x00\x00", "{"])
def test_a_version_that_is_none_is_told_of_and_nothing_is_touched(
    made: ServedImages, one: PushedImage, text: str
) -> None:
    made.prepare(one)
    made.kill()
    version = made.state_dir / "version"
    before = version.read_bytes()
    version.write_text(text)
    code, told = made.run_to_its_end()
    assert (code, version.read_text()) == (DAMAGED, text)
    assert f"cannot read {version}" in told
    assert "Traceback" not in told
    version.write_bytes(before)
    made.start()
    assert made.read(one, *ONE) == b"".join(ONE.values())


def test_a_newer_version_is_refused_and_nothing_is_touched(made: ServedImages, one: PushedImage) -> None:
    found = made.prepare(one)
    made.kill()
    version = made.state_dir / "version"
    before = version.read_bytes()
    version.write_text("1000\n")
    code, told = made.run_to_its_end()
    assert (code, version.read_text()) == (REFUSED, "1000\n")
    assert "newer version (layout 1000" in told
    version.write_bytes(before)
    made.start()
    assert made.image_ids() == [found["imageId"]]
    assert made.read(one, *ONE) == b"".join(ONE.values())


def test_no_layer_gets_the_number_of_another_when_the_count_is_lost(
    made: ServedImages, one: PushedImage, other: PushedImage
) -> None:
    made.prepare(one)
    made.kill()
    (made.state_dir / "slots").unlink()
    made.start()
    made.prepare(other)
    assert made.read(one, *ONE) == b"".join(ONE.values())
    assert made.read(other, *OTHER) == b"".join(OTHER.values())


def test_of_two_layers_with_one_number_one_is_had_anew(
    made: ServedImages, one: PushedImage, other: PushedImage
) -> None:
    made.prepare(one)
    made.prepare(other)
    made.kill()
    slot = json.loads(_facts(made, one).read_bytes())["slot"]
    _change(_facts(made, other), slot=slot)
    made.start()
    assert len(made.image_ids()) == 1
    made.prepare(one)
    made.prepare(other)
    assert made.read(one, *ONE) == b"".join(ONE.values())
    assert made.read(other, *OTHER) == b"".join(OTHER.values())


@pytest.mark.parametrize("change", [{"unheard_of": 1}, {"slot": "1"}, {"slot": 0}, {"slot": None}, {"below": 7}])
def test_a_layer_that_another_version_describes_is_had_anew_and_the_others_stay(
    made: ServedImages, one: PushedImage, other: PushedImage, change: dict[str, object]
) -> None:
    made.prepare(one)
    stays = made.prepare(other)
    made.kill()
    _change(_facts(made, one), **change)
    made.start()
    assert made.image_ids() == [stays["imageId"]]
    assert made.read(other, *OTHER) == b"".join(OTHER.values())
    made.prepare(one)
    assert made.read(one, *ONE) == b"".join(ONE.values())


def _change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))
