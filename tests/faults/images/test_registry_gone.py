"""The registry is away: reads wait, the rest is told, and everything goes on when it is back."""

import time
from pathlib import Path

import pytest

from edge.errors import RegistryUnavailableError
from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import TestImage, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.UNAVAILABLE])
def test_a_read_waits_and_is_answered_when_the_registry_is_back(
    tmp_path: Path, registry: Registry, image: TestImage, fault: Fault
) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        made.proxy.break_with(fault)
        reader = made.start_reading(made.path(image, "data/05"))
        made.until(lambda: "does not answer" in made.notes() or "503" in made.notes())
        assert reader.poll() is None, "it waits"
        made.proxy.heal()
        output, problem = reader.communicate(timeout=60)
        assert (output, problem) == (image.files[0]["data/05"], b"")


def test_a_read_fails_after_the_stated_time_and_the_cause_is_told(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry, "--read-seconds", "3", "--background-kib-per-second", "400") as made:
        made.prepare(image)
        made.proxy.break_with(Fault.UNAVAILABLE)
        began = time.monotonic()
        output, problem = made.start_reading(made.path(image, "data/05")).communicate(timeout=60)
        assert (output, b"Input/output error" in problem) == (b"", True)
        assert time.monotonic() - began >= 2
        assert "503" in made.notes()
        made.proxy.heal()
        made.check(image)


def test_what_has_arrived_is_served_without_the_registry(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(image)
        made.service.wait_for(found["imageId"], "COMPLETE", 60, or_later="MATERIALIZED")
        made.proxy.break_with(Fault.RESET)
        made.service.kill()
        made.service.start()
        made.check(image)
        assert made.prepare(image)["imageId"] == found["imageId"], "the image that is here will do"


def test_an_image_that_is_nowhere_is_a_reasoned_failure(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.proxy.break_with(Fault.RESET)
        with pytest.raises(RegistryUnavailableError, match="does not answer"):
            made.prepare(image)
        made.proxy.heal()
        made.prepare(image)
        made.check(image)


def test_completion_goes_on_when_the_registry_is_back(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(image)
        made.proxy.break_with(Fault.RESET)
        made.until(lambda: made.service.image(found["imageId"])["problem"] != "")
        assert "does not answer" in made.service.image(found["imageId"])["problem"]
        made.proxy.heal()
        done = made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        assert done["problem"] == ""
        made.check(image)
