"""A bundle that is not what it should be is refused, `edge image log` says why, and the start goes on without it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.images.oci.documents import digest_of
from edge.images.starts import zstd
from edge.images.starts.bundle import BLOB_DIGEST, BLOB_SIZE, HEAD_DIGEST, HEAD_SIZE
from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import Rig, TestImage, content, push_image, rig
from tests.support.registry import Registry
from tests.support.start_bundles import Parts, parts_of, push_parts

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]
NAMES = ("data/03", "data/17")


@pytest.fixture(scope="module")
def wrong(registry: Registry) -> TestImage:
    return push_image(registry, "wrong", [content(7)])


@pytest.fixture(scope="module")
def parts(registry: Registry, wrong: TestImage) -> Parts:
    return parts_of(registry, wrong, NAMES)


@pytest.fixture(scope="module")
def others(registry: Registry) -> Parts:
    return parts_of(registry, push_image(registry, "other", [content(8)]), NAMES)


@pytest.fixture(scope="module")
def made(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One service for all: each image is removed again."""
    with rig(tmp_path_factory.mktemp("rig"), registry) as running:
        yield running


def _refused(made: Rig, image: TestImage, why: str) -> None:
    before = len(made.service.ask("notes"))
    found = made.prepare(image)
    try:
        made.check(image)
        made.until(lambda: any(why in note["text"] for note in made.service.ask("notes")[before:]))
        made.check(image)
    finally:
        made.service.ask("remove", image=found["imageId"], force=True)


def test_of_another_image(made: Rig, registry: Registry, wrong: TestImage, parts: Parts, others: Parts) -> None:
    push_parts(registry, wrong, replace(others, subject=parts.subject))
    _refused(made, wrong, "it is of the image sha256:")


def test_with_another_image_s_layers(
    made: Rig, registry: Registry, wrong: TestImage, parts: Parts, others: Parts
) -> None:
    push_parts(registry, wrong, replace(parts, head=replace(parts.head, layers=others.head.layers)))
    _refused(made, wrong, "it has other layers than the image")


def test_with_another_layer_s_list_of_files(
    tmp_path: Path, registry: Registry, wrong: TestImage, parts: Parts, others: Parts
) -> None:
    push_parts(registry, wrong, replace(parts, tocs=others.tocs))
    with rig(tmp_path, registry) as made:
        # The lists are of layers of one size, so that nothing but the proof at the end can tell.
        found = made.prepare(wrong)
        told = made.service.image(found["imageId"])
        made.until(lambda: "is not used" in made.notes() or "does not describe" in made.notes())
        assert told["state"] != "MATERIALIZED"


def test_with_a_payload_that_its_head_does_not_describe(
    made: Rig, registry: Registry, wrong: TestImage, parts: Parts
) -> None:
    push_parts(registry, wrong, replace(parts, payload=b"\1" + parts.payload[1:]))
    _refused(made, wrong, "another digest than its head says")


def test_that_ends_early(made: Rig, registry: Registry, wrong: TestImage, parts: Parts) -> None:
    push_parts(registry, wrong, replace(parts, payload=parts.payload[:100_000]))
    _refused(made, wrong, "it holds less than its head says")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda blob: blob[: len(blob) // 2], "breaks off"),
        (lambda blob: blob[:-500] + bytes(499) + b"\0", "damaged"),
        (lambda blob: blob[:-1] + b"more" + b"\0", "bytes follow"),
    ],
)
def test_whose_frame_is_broken(  # noqa: PLR0913, PLR0917 - the fixtures
    made: Rig, registry: Registry, wrong: TestImage, parts: Parts, spoil: Callable[[bytes], bytes], why: str
) -> None:
    push_parts(registry, wrong, parts, blob=spoil(parts.packed()[1]))
    _refused(made, wrong, why)


def test_that_unpacks_without_end(made: Rig, registry: Registry, wrong: TestImage, parts: Parts) -> None:
    head, _ = parts.packed()
    bomb = zstd.compress((bytes(1 << 20) for _ in range(256)), 1)
    push_parts(registry, wrong, parts, blob=head + bomb + b"\0")
    _refused(made, wrong, "another digest than its head says")


def test_whose_head_unpacks_without_end(made: Rig, registry: Registry, wrong: TestImage, parts: Parts) -> None:
    bomb = zstd.compress((bytes(1 << 20) for _ in range(600)), 1)
    notes = {HEAD_SIZE: str(len(bomb)), HEAD_DIGEST: digest_of(bomb)}
    push_parts(registry, wrong, parts, blob=bomb + b"\0", notes=notes)
    _refused(made, wrong, "unpacks to more than")


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ({HEAD_SIZE: "99999999999", BLOB_SIZE: "999999999999"}, "are the most"),
        ({BLOB_DIGEST: "sha256:../../x"}, "do not say where it is"),
        ({HEAD_DIGEST: "sha256:" + "0" * 64}, "another digest than the list of referrers says"),
        ({HEAD_SIZE: "77"}, "another digest than the list of referrers says"),
        ({BLOB_DIGEST: "sha256:" + "0" * 64}, "404"),
    ],
)
def test_whose_annotations_lie(  # noqa: PLR0913, PLR0917 - the fixtures
    made: Rig, registry: Registry, wrong: TestImage, parts: Parts, notes: dict[str, str], why: str
) -> None:
    push_parts(registry, wrong, parts, notes=notes)
    _refused(made, wrong, why)


def test_with_ranges_outside_the_layer(made: Rig, registry: Registry, wrong: TestImage, parts: Parts) -> None:
    first, *more = parts.head.ranges
    moved = first._replace(start=first.start + (1 << 40), end=first.end + (1 << 40))
    push_parts(registry, wrong, replace(parts, head=replace(parts.head, ranges=(moved, *more))))
    _refused(made, wrong, "outside the layer")


def test_that_stops_arriving(tmp_path: Path, registry: Registry, wrong: TestImage, parts: Parts) -> None:
    push_parts(registry, wrong, parts)
    with rig(tmp_path, registry) as made:
        made.proxy.break_with(Fault.BREAK_OFF)
        made.start_asking(wrong)
        made.until(lambda: bool(made.proxy.blob_requests()))
        made.proxy.heal()
        made.prepare(wrong)
        made.check(wrong)


def test_that_lies_is_told_apart_by_the_layer_and_the_image_is_never_unpacked(
    tmp_path: Path, registry: Registry, wrong: TestImage, parts: Parts
) -> None:
    push_parts(registry, wrong, parts.saying(parts.payload[:1000] + b"\xff" + parts.payload[1001:]))
    with rig(tmp_path, registry) as made:
        found = made.prepare(wrong)
        made.until(lambda: "its start bundle holds other bytes" in made.service.image(found["imageId"])["problem"])
        assert made.service.image(found["imageId"])["state"] != "MATERIALIZED"
        folders = (made.service.state_dir / "unpacked").iterdir()
        assert not [path for path in folders if not path.name.endswith(".new")]


def test_of_a_registry_that_serves_no_parts(tmp_path: Path, registry: Registry, wrong: TestImage, parts: Parts) -> None:
    push_parts(registry, wrong, parts)
    with rig(tmp_path, registry) as made:
        made.proxy.break_with(Fault.NO_RANGE)
        made.prepare(wrong)
        made.check(wrong)
        assert "no Range" in made.notes()
