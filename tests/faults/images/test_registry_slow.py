"""The registry is slow, or falls silent in the middle of a layer: what is read comes first, and comes once."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.narrow_link import NarrowLink
from tests.support.oci_layout import layer
from tests.support.registry import Registry
from tests.support.served_images import SPAN_SIZE, PushedImage, finish, push_indexed, served_images

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]

KIB = 1 << 10
FAST = 100e6
FILES = {f"data/{number:02}": random.Random(number).randbytes(100 * KIB) for number in range(24)}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def image(registry: Registry) -> PushedImage:
    return push_indexed(registry, "slow", layer(FILES))


def test_a_read_comes_before_what_nobody_has_asked_for(tmp_path: Path, registry: Registry, image: PushedImage) -> None:
    with NarrowLink(registry.port, FAST) as link, served_images(tmp_path, link.address) as made:
        made.prepare(image)
        link.bytes_per_second = 300 * KIB
        before = link.passed
        assert made.read(image, "data/20") == FILES["data/20"]
        # The file, the spans it begins and ends in, what is read ahead of it, what was in the pipe already.
        assert link.passed - before < image.size / 2


def test_a_read_does_not_keep_to_the_rate_of_what_nobody_waits_for(
    tmp_path: Path, registry: Registry, image: PushedImage
) -> None:
    with (
        NarrowLink(registry.port, FAST) as link,
        served_images(tmp_path, link.address, "--background-kib-per-second", "1") as made,
    ):
        made.prepare(image)
        before = link.passed
        made.until(lambda: link.passed > before + 64 * KIB)
        assert made.read(image, *FILES) == b"".join(FILES.values())


def test_many_who_read_the_same_wait_for_one_transfer(tmp_path: Path, registry: Registry, image: PushedImage) -> None:
    with NarrowLink(registry.port, FAST) as link, served_images(tmp_path, link.address) as made:
        made.prepare(image)
        link.bytes_per_second = 1024 * KIB
        before = link.passed
        readers = [made.start_reading(image, *FILES) for _ in range(8)]
        assert [finish(reader) for reader in readers] == [b"".join(FILES.values())] * 8
        assert link.passed - before < image.size * 1.5


def test_a_connection_that_dies_in_mid_span_is_gone_on_with_on_another(
    tmp_path: Path, registry: Registry, image: PushedImage
) -> None:
    with NarrowLink(registry.port, FAST) as link, served_images(tmp_path, link.address) as made:
        made.prepare(image)
        link.bytes_per_second = 256 * KIB
        before = link.passed
        reader = made.start_reading(image, *FILES)
        for number in range(1, 6):
            made.until(lambda: link.passed - before > number * SPAN_SIZE * 3 // 2)  # noqa: B023 - called at once
            link.cut()
        assert reader.poll() is None
        link.bytes_per_second = FAST
        assert finish(reader) == b"".join(FILES.values())


def test_silence_in_the_middle_of_a_layer_ends_with_the_silence(
    tmp_path: Path, registry: Registry, image: PushedImage
) -> None:
    with NarrowLink(registry.port, FAST) as link, served_images(tmp_path, link.address) as made:
        found = made.prepare(image)
        link.bytes_per_second = 256 * KIB
        before = link.passed
        reader = made.start_reading(image, "data/10", "data/11")
        made.until(lambda: link.passed > before + SPAN_SIZE // 2)
        link.bytes_per_second = 0
        assert made.image(found["imageId"])["state"] == "STARTABLE", "it answers while a read waits"
        link.bytes_per_second = FAST
        assert finish(reader) == FILES["data/10"] + FILES["data/11"]
        made.wait_until_unpacked(found["imageId"])
        assert made.read(image, *FILES) == b"".join(FILES.values())


def test_a_reader_that_is_killed_while_it_waits_is_gone_and_the_others_are_not(
    tmp_path: Path, registry: Registry, image: PushedImage
) -> None:
    with NarrowLink(registry.port, FAST) as link, served_images(tmp_path, link.address) as made:
        made.prepare(image)
        link.bytes_per_second = 0
        gone, stays = (made.start_reading(image, "data/15") for _ in range(2))
        made.until(lambda: all(_waits(reader.pid) for reader in (gone, stays)))
        gone.kill()
        assert gone.wait(30) == -signal.SIGKILL
        link.bytes_per_second = FAST
        assert finish(stays) == FILES["data/15"]


def _waits(reader: int) -> bool:
    """It has the file open and sleeps: in a read that only the file system ends."""
    opened = [str(path.readlink()) for path in Path(f"/proc/{reader}/fd").iterdir()]
    state = Path(f"/proc/{reader}/stat").read_text().rpartition(")")[2].split()[0]
    return any(path.endswith("data/15") for path in opened) and state in ("S", "D")
