"""The image service dies by SIGKILL, whatever it does: whoever reads waits, and gets the right bytes."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import Rig, TestImage, podman_images, rig
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


def test_a_read_that_waits_for_the_network_is_answered_by_the_next_service(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        made.proxy.break_with(Fault.STALL)
        asked = made.proxy.blob_requests()
        reader = made.start_reading(made.path(image, "data/07"))
        _until(lambda: made.proxy.blob_requests() > asked)
        made.service.kill()
        assert reader.poll() is None, "it waits"
        made.proxy.heal()
        made.service.start()
        output, problem = reader.communicate(timeout=60)
        assert (output, problem) == (image.files[0]["data/07"], b"")
        made.check(image)


def test_reads_that_begin_while_no_service_is_there_are_answered_by_the_next(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        made.service.kill()
        reader = made.start_reading(made.path(image, "data/03"), made.path(image, "data/11"))
        time.sleep(0.3)
        assert reader.poll() is None, "it waits"
        made.service.start()
        output, problem = reader.communicate(timeout=60)
        assert (output, problem) == (image.files[0]["data/03"] + image.files[0]["data/11"], b"")


@pytest.mark.parametrize("round_", range(4))
def test_killed_while_it_fetches_it_goes_on_where_it_was(
    tmp_path: Path, registry: Registry, image: TestImage, round_: int
) -> None:
    with rig(tmp_path, registry, "--background-kib-per-second", "700") as made:
        found = made.prepare(image)
        made.service.wait_for_bytes(found["imageId"], found["size"] * (round_ + 1) // 6)
        here = made.service.image(found["imageId"])["here"]
        made.service.kill()
        made.service.start()
        assert made.service.image(found["imageId"])["here"] >= here, "nothing that had arrived is lost"
        made.check(image)
        made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        made.check(image)
        assert podman_images(made.service.store) == [found["imageId"]]


@pytest.mark.parametrize("step", ["tree", "layer.json", "unpacked.new", "unpacked"])
def test_killed_at_a_step_of_a_layer_s_life_it_ends_unpacked_with_the_right_bytes(
    tmp_path: Path, registry: Registry, image: TestImage, plain: TestImage, step: str
) -> None:
    with rig(tmp_path, registry) as made:
        for one in (image, plain):
            _kill_when_there(made, one, step)
            found = made.prepare(one)
            made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
            made.check(one)
        assert len(podman_images(made.service.store)) == 2
        assert not list(made.service.state_dir.glob("*/*.new")), "no half is left"


def _kill_when_there(made: Rig, image: TestImage, step: str) -> None:
    """Ask for the image, and kill the service as soon as a file of this step is there."""
    layer_id = image.layer_ids[0]
    state = made.service.state_dir
    paths = {
        "tree": state / "layers" / f"{layer_id}.new" / "tree",
        "layer.json": state / "layers" / layer_id / "layer.json",
        "unpacked.new": state / "unpacked" / f"{layer_id}.new",
        "unpacked": state / "unpacked" / layer_id,
    }
    asking = made.start_asking(image)
    # A step may be over before we look; then it is killed after it.
    _until(
        lambda: paths[step].exists() or (paths["layer.json"].exists() and step == "tree") or paths["unpacked"].exists()
    )
    made.service.kill()
    asking.join(30)
    made.service.start()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
