"""The registry sends something else than it should: nothing of it is served, and what is right is had in the end."""

from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import TestImage, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


@pytest.mark.parametrize("fault", [Fault.FLIP, Fault.WRONG_RANGE, Fault.BREAK_OFF, Fault.EXPIRED_LINK, Fault.SLOW])
def test_a_container_never_sees_it(tmp_path: Path, registry: Registry, image: TestImage, fault: Fault) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(image)
        made.proxy.break_with(fault, times=3)
        made.check(image)
        made.proxy.heal()
        made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        made.check(image)


def test_a_registry_that_always_lies_is_told_of_and_its_bytes_are_not_served(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry, "--read-seconds", "2", "--background-kib-per-second", "1") as made:
        found = made.prepare(image)
        made.proxy.break_with(Fault.FLIP)
        output, problem = made.start_reading(made.path(image, "data/23")).communicate(timeout=60)
        assert (output, b"Input/output error" in problem) == (b"", True)
        made.until(lambda: "digest" in made.notes())
        made.proxy.heal()
        made.check(image)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 90)


@pytest.mark.parametrize("fault", [Fault.FLIP, Fault.BREAK_OFF])
def test_a_layer_without_an_index_is_fetched_again(
    tmp_path: Path, registry: Registry, plain: TestImage, fault: Fault
) -> None:
    with rig(tmp_path, registry) as made:
        made.until_prepared(plain, lambda: made.proxy.break_with(fault, times=2))
        made.check(plain)


def test_a_registry_without_ranges_gives_whole_layers(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.proxy.break_with(Fault.NO_RANGE)
        made.prepare(image)
        made.check(image)
        assert "fetched whole" in made.notes()


def test_a_token_that_ends_in_mid_layer_is_had_anew(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.proxy.tokens = True
        made.prepare(image)
        for name, data in list(image.files[0].items())[::5]:
            made.proxy.revoke()
            assert made.read(made.path(image, name)) == data


def test_a_redirect_is_followed_without_our_credentials(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        made.proxy.tokens = made.proxy.redirects = True
        made.prepare(image)
        made.check(image)


def test_a_blob_that_is_gone_is_a_reasoned_failure(tmp_path: Path, registry: Registry, image: TestImage) -> None:
    with rig(tmp_path, registry) as made:
        found = made.prepare(image)
        made.proxy.break_with(Fault.GONE)
        output, problem = made.start_reading(made.path(image, "data/23")).communicate(timeout=60)
        assert (output, b"Input/output error" in problem) == (b"", True)
        made.until(lambda: "404" in made.service.image(found["imageId"])["problem"])
        made.proxy.heal()
        made.check(image)
