"""A second service on a store that has one, a store of another version, a store that was not unmounted."""

from pathlib import Path

import pytest

from tests.support.image_service import ImageServiceProcess
from tests.support.lazy_rig import TestImage, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


def test_the_second_is_refused_and_the_first_goes_on(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        second = ImageServiceProcess(tmp_path, tmp_path / "registries.conf")
        second.socket = tmp_path / "second.sock"
        code, told = second.run_to_its_end()
        assert code == 5
        assert "another image service works on" in told
        made.check(image)


def test_a_store_of_a_newer_version_is_refused_and_left_as_it_is(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        made.service.kill()
        version = made.service.state_dir / "version"
        version.write_text("99\n")
        code, told = made.service.run_to_its_end()
        version_left = version.read_text()
        version.write_text("1\n")
        assert (code, "newer version (layout 99" in told) == (5, True)
        assert version_left == "99\n"
        made.service.start()
        made.check(image)


def test_a_store_without_a_version_is_taken_over(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        made.service.kill()
        (made.service.state_dir / "version").unlink()
        made.service.start()
        made.check(image)
        assert (made.service.state_dir / "version").read_text() == "1\n"
