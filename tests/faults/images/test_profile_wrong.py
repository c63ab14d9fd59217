"""A start profile that does not fit: it is refused or passed over, and the start goes on without it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import EdgeError, InvalidInputError
from edge.images.oci.documents import host_architecture
from edge.model.start_profile import FileRange, StartProfile
from tests.support.lazy_rig import Rig, TestImage, content, push_image, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def known(registry: Registry) -> TestImage:
    return push_image(registry, "profiled", [content(11), {"top/file": content(12, 1)["data/00"]}])


@pytest.fixture(scope="module")
def made(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with rig(tmp_path_factory.mktemp("rig"), registry, "--background-kib-per-second", "1") as running:
        yield running


def _profile(made: Rig, *ranges: FileRange, **other: str) -> StartProfile:
    facts = {
        "image": f"{made.proxy.address}/profiled",
        "image_id": "a" * 64,
        "digest": "",
        "platform": f"linux/{host_architecture()}",
    }
    return StartProfile(**(facts | other), starts=1, ranges=ranges)


def _given(made: Rig, profile: StartProfile) -> None:
    made.service.ask("takeProfile", profile=profile.to_json())


def _arrived(made: Rig, image: TestImage, layer: int = 0) -> bytes:
    return (made.service.state_dir / "layers" / image.layer_ids[layer] / "blob.map").read_bytes()


@pytest.fixture
def start(made: Rig, known: TestImage) -> Iterator[None]:
    yield
    made.service.ask("remove", image=f"{made.proxy.address}/{known.name}", force=True)
    for path in (made.service.state_dir / "profiles").iterdir():
        path.unlink()


@pytest.mark.usefixtures("start")
def test_what_was_recorded_is_fetched_first_at_the_next_start_by_file(made: Rig, known: TestImage) -> None:
    found = made.prepare(known)
    made.read(made.path(known, "data/07"))
    made.read(made.path(known, "top/file", 1))
    assert made.service.ask("ready", image=found["imageId"])["starts"] == 1
    [profile] = made.service.ask("profiles", imageId=found["imageId"])
    assert list(dict.fromkeys(one[0] for one in profile["ranges"])) == ["data/07", "top/file"]
    made.service.ask("remove", image=found["imageId"], force=True)
    made.prepare(known)
    made.until(lambda: any(_arrived(made, known)) and any(_arrived(made, known, 1)))
    before = made.proxy.blob_requests()
    made.read(made.path(known, "data/07"))
    assert made.proxy.blob_requests() == before, "it was here already"
    assert made.service.ask("ready", image=found["imageId"])["starts"] == 2


@pytest.mark.usefixtures("start")
def test_of_another_version_of_the_image_helps_as_a_hint(made: Rig, known: TestImage) -> None:
    _given(made, _profile(made, FileRange("data/20", 0, 96 << 10), FileRange("data/gone", 0, 10)))
    made.prepare(known)
    made.until(lambda: any(_arrived(made, known)))
    made.check(known)


@pytest.mark.usefixtures("start")
def test_with_ranges_outside_its_files_fetches_what_there_is(made: Rig, known: TestImage) -> None:
    _given(made, _profile(made, FileRange("data/20", 0, 300 << 20), FileRange("data/21", 1 << 48, (1 << 48) + 9)))
    made.prepare(known)
    made.until(lambda: any(_arrived(made, known)))
    made.check(known)


@pytest.mark.usefixtures("start")
def test_of_other_files_is_told_of_and_passed_over(made: Rig, known: TestImage) -> None:
    _given(made, _profile(made, FileRange("no/such", 0, 10), FileRange("data", 0, 10)))
    made.prepare(known)
    made.check(known)
    assert "it names no file that the image has" in made.notes()


@pytest.mark.parametrize("other", [{"platform": "linux/riscv64"}, {"platform": ""}, {"image_id": "../../etc/x"}])
def test_for_something_else_is_refused(made: Rig, other: dict[str, str]) -> None:
    with pytest.raises(InvalidInputError):
        _given(made, _profile(made, FileRange("data/20", 0, 10), **other))
    assert list((made.service.state_dir / "profiles").iterdir()) == []


def test_that_is_none_is_refused(made: Rig) -> None:
    wrong: tuple[object, ...] = (None, [], {"schemaVersion": 1}, {"ranges": [["/", 0, 1, 2]] * 100_000})
    for profile in wrong:
        with pytest.raises(EdgeError):
            made.service.ask("takeProfile", profile=profile)


@pytest.mark.usefixtures("start")
def test_on_a_damaged_disk_is_passed_over_and_removed(made: Rig, known: TestImage) -> None:
    good = _profile(made, FileRange("data/20", 0, 10))
    _given(made, good)
    folder: Path = made.service.state_dir / "profiles"
    torn = folder / f"{'b' * 64}-{host_architecture()}.json"
    torn.write_bytes(good.encode()[:40])
    (folder / f"{'c' * 64}-{host_architecture()}.json").write_text(json.dumps(7))
    assert [one["imageId"] for one in made.service.ask("profiles")] == ["a" * 64]
    assert not torn.exists()
    made.prepare(known)
    made.check(known)
