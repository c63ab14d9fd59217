"""A container started from a bundle reads what it would read without one, while it arrives and afterwards."""

from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import Rig, TestImage, content, push_image, rig
from tests.support.registry import Registry
from tests.support.start_bundles import Parts, parts_of, push_parts

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]
NAMES = ("data/03", "data/17", "top/file", "data/05")


@pytest.fixture(scope="module")
def bundled(registry: Registry) -> TestImage:
    return push_image(registry, "bundled", [content(5), {"top/file": content(6, 1)["data/00"]}])


@pytest.fixture(scope="module", autouse=True)
def parts(registry: Registry, bundled: TestImage) -> Parts:
    made = parts_of(registry, bundled, NAMES)
    push_parts(registry, bundled, made)
    return made


def _in_bundle(made: Rig, image: TestImage) -> bytes:
    return made.read(*(made.path(image, name, int(name.startswith("top"))) for name in NAMES))


def _expected(image: TestImage) -> bytes:
    return b"".join(image.files[int(name.startswith("top"))][name] for name in NAMES)


def test_every_file_is_as_in_the_image_while_it_fills_and_afterwards(
    tmp_path: Path, registry: Registry, bundled: TestImage
) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(bundled)
        assert _in_bundle(made, bundled) == _expected(bundled)
        made.check(bundled)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        made.check(bundled)
        assert not any((made.service.state_dir / "bundles").iterdir()), "what is proved need not stay twice"
        assert "bundle" not in made.notes()


def test_its_files_need_no_more_than_the_bundle(
    tmp_path: Path, registry: Registry, bundled: TestImage, parts: Parts
) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "1") as made:
        made.prepare(bundled)
        assert _in_bundle(made, bundled) == _expected(bundled)
        blobs = [path for path, _ in made.proxy.requests if "/blobs/" in path]
        # The configuration and the bundle, and what is begun in the background.
        assert len([path for path in blobs if path.endswith(parts.head.layers[0].ztoc.digest)]) == 0
        layers = [wanted for path, wanted in made.proxy.requests if path.endswith(parts.head.layers[1].digest)]
        assert layers == []


def test_windows_come_when_a_read_needs_them_and_stay(tmp_path: Path, registry: Registry, bundled: TestImage) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "1") as made:
        made.prepare(bundled)
        assert made.read(made.path(bundled, "data/11")) == bundled.files[0]["data/11"]
        folder = made.service.state_dir / "layers" / bundled.layer_ids[0]
        assert not (folder / "windows.json").exists()
        made.service.kill()
        made.service.start()
        assert made.read(made.path(bundled, "data/12")) == bundled.files[0]["data/12"]


def test_a_killed_service_goes_on_from_what_came(
    tmp_path: Path, registry: Registry, bundled: TestImage, parts: Parts
) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "1") as made:
        made.prepare(bundled)
        made.until(lambda: _payload(made).stat().st_size == len(parts.payload))
        made.service.kill()
        made.proxy.break_with(Fault.GONE)
        made.service.start()
        assert _in_bundle(made, bundled) == _expected(bundled)


def test_a_block_the_disk_lost_is_had_from_the_layer(
    tmp_path: Path, registry: Registry, bundled: TestImage, parts: Parts
) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(bundled)
        made.until(lambda: not _folders(made) or _payload(made).stat().st_size == len(parts.payload))
        made.service.stop()
        if _folders(made):
            with _payload(made).open("r+b") as file:
                file.seek(70_000)
                file.write(bytes(100))
        made.service.start()
        assert _in_bundle(made, bundled) == _expected(bundled)
        made.check(bundled)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 60)


def _folders(made: Rig) -> list[Path]:
    return [path for path in (made.service.state_dir / "bundles").iterdir() if not path.name.startswith(".")]


def _payload(made: Rig) -> Path:
    [folder] = _folders(made)
    return folder / "payload"
