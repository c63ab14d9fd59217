"""The registry sends something else than it should: nothing of it is served, and what is right is had in the end."""

from pathlib import Path

import pytest

from edge.errors import EngineUnavailableError
from edge.images.oci.documents import host_architecture
from edge.images.oci.references import parse_reference
from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import Rig, TestImage, rig
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


def pinned(made: Rig, image: TestImage) -> str:
    """The image by its digest: as it is asked for once its manifest is proven."""
    reference = parse_reference(f"{made.proxy.address}/{image.name}")
    return str(reference.at(made.prepare(image)["digest"]))


def test_an_index_nobody_signed_says_nothing_of_an_image_that_must_be_proven(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "1") as made:
        by_digest = pinned(made, image)
        found = made.prepare(image)
        assert made.service.ask("sealed", imageId=found["imageId"]) is False
        # Podman's own image may share the layers that are here.
        assert made.service.ask("sealed", imageId="f" * 64) is False
        with pytest.raises(EngineUnavailableError, match="not proved yet"):
            made.service.ask("prepare", image=by_digest, architecture=host_architecture(), proven=True)
        made.service.ask("remove", image=found["imageId"], force=True)
        anew = made.service.ask("prepare", image=by_digest, architecture=host_architecture(), proven=True)
        assert (anew["here"], anew["imageId"]) == (anew["size"], found["imageId"]), "it came whole"
        assert made.service.ask("sealed", imageId=found["imageId"]) is True


def test_what_an_unsigned_index_brought_is_taken_once_it_is_proved(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry) as made:
        by_digest = pinned(made, image)
        found = made.prepare(image)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        anew = made.service.ask("prepare", image=by_digest, architecture=host_architecture(), proven=True)
        assert anew["state"] == "MATERIALIZED"
