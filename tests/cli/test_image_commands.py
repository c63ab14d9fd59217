"""`edge image …` on a real service and a real registry: what a technician on site types."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_proxy import Fault
from tests.support.lazy_rig import ROOT, Rig, TestImage, content, podman_images, push_image, rig, write_registries
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def image(registry: Registry) -> TestImage:
    return push_image(registry, "shop/app", [content(1, 8), content(2, 2)])


class Device:
    """A device, and somebody at its keyboard."""

    def __init__(self, made: Rig, image: TestImage) -> None:
        self.made = made
        self.reference = f"{made.proxy.address}/{image.name}"

    def edge(self, *arguments: str, code: int = 0, service: bool = True) -> str:
        socket = ("--socket", str(self.made.service.socket)) if service else ()
        environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(self.made.folder / "registries.conf")}
        done = subprocess.run(
            (sys.executable, "-m", "edge", "image", *arguments, *socket),
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.edge(*arguments, "--output", "json"))


@pytest.fixture
def device(tmp_path: Path, registry: Registry, image: TestImage) -> Iterator[Device]:
    with rig(tmp_path, registry) as made:
        yield Device(made, image)


def test_pull_ls_and_rm(device: Device, image: TestImage) -> None:
    assert "MATERIALIZED" in device.edge("pull", "--wait", device.reference)
    [listed] = device.json("ls")
    assert (listed["state"], listed["here"], listed["names"][0]) == ("MATERIALIZED", listed["size"], device.reference)
    assert "[####################] 100 %" in device.edge("ls")
    device.made.check(image)
    assert "is complete and unpacked" in device.edge("log")
    assert "removed" in device.edge("rm", device.reference)
    assert device.json("ls") == []
    assert podman_images(device.made.service.store) == []
    assert not list((device.made.service.state_dir / "unpacked").iterdir()), "the space is free again"
    assert "there is no image" in device.edge("rm", device.reference, code=3)


def test_an_image_a_task_needs_is_neither_removed_nor_pruned(device: Device) -> None:
    found = device.json("pull", device.reference)
    device.made.service.ask("protect", imageIds=[found["imageId"]])
    assert "is used by a task" in device.edge("rm", device.reference, code=5)
    assert "nothing to remove" in device.edge("prune")
    device.made.service.ask("protect", imageIds=[])
    assert "removed" in device.edge("prune")
    assert device.json("ls") == []


def test_what_is_removed_is_not_fetched_any_more(device: Device) -> None:
    device.made.proxy.break_with(Fault.SLOW)
    device.edge("pull", device.reference)
    device.made.until(lambda: device.made.service.ask("list")[0]["here"] > 0)
    device.edge("rm", device.reference)
    device.made.proxy.heal()
    asked = device.made.proxy.blob_requests()
    device.made.until(lambda: device.made.service.ask("list") == [])
    subprocess.run(("sleep", "1"), check=True)
    assert device.made.proxy.blob_requests() == asked
    assert not list((device.made.service.state_dir / "layers").iterdir())


def test_an_image_travels_on_a_stick(device: Device, tmp_path: Path, image: TestImage) -> None:
    stick = tmp_path / "app.tar"
    told = device.edge("export", device.reference, "--to", str(stick), service=False)
    assert f"is in {stick}" in told
    device.made.proxy.break_with(Fault.RESET)
    device.made.registry.kill()
    try:
        assert device.reference in device.edge("import", str(stick))
        device.made.check(image)
        [found] = device.json("ls")
        device.made.service.wait_for(found["imageId"], "MATERIALIZED", 60)
        device.made.check(image)
        assert device.made.prepare(image)["imageId"] == found["imageId"], "a task finds it, with no registry"
    finally:
        device.made.registry.start()


def test_an_index_that_a_device_made_is_pushed_and_serves_the_next(tmp_path: Path, registry: Registry) -> None:
    image = push_image(registry, "shop/plain", [content(3, 48), content(4, 48)], index="")
    reference, push = (
        f"{registry.address}/{image.name}",
        ("index", "push", f"{registry.address}/{image.name}", "--kept"),
    )
    with rig(tmp_path, registry) as made:
        write_registries(made.folder / "registries.conf", registry.address)
        made.service.stop()
        made.service.start()
        device = Device(made, image)
        assert "there is no image" in device.edge(*push, code=3)
        assert "MATERIALIZED" in device.edge("pull", "--wait", reference)
        with _without_large_blobs(registry):
            assert "pushed index sha256:" in device.edge(*push)
        assert "and nothing else" in device.edge(*push, "--index-version", "v1", code=2)
        device.edge("index", "verify", reference, service=False)
    (tmp_path / "next").mkdir()
    with rig(tmp_path / "next", registry, "--background-kib-per-second", "1") as following:
        assert following.prepare(image)["state"] == "STARTABLE", "by its index alone"
        following.check(image)


def test_an_index_that_came_with_the_image_is_not_kept_as_the_devices_own(device: Device) -> None:
    device.edge("pull", "--wait", device.reference)
    assert "has made no index" in device.edge("index", "push", device.reference, "--kept", code=3)


@contextmanager
def _without_large_blobs(registry: Registry) -> Iterator[None]:
    """Whoever reads a layer now fails."""
    large = [path for path in registry.store.glob("**/blobs/sha256/*/*/data") if path.stat().st_size > 1 << 20]
    assert large
    for path in large:
        path.rename(path.with_suffix(".away"))
    yield
    for path in large:
        path.with_suffix(".away").rename(path)


def test_an_archive_of_another_tool_needs_a_name(device: Device, tmp_path: Path, registry: Registry) -> None:
    archive = tmp_path / "other.tar"
    source = f"docker://{registry.address}/shop/app:1"
    subprocess.run(
        ("skopeo", "copy", "--quiet", "--src-tls-verify=false", source, f"oci-archive:{archive}:1"), check=True
    )
    assert "--name registry.example/app:1" in device.edge("import", str(archive), code=2)
    device.edge("import", str(archive), "--name", "registry.example/app:1")
    assert device.json("ls")[0]["names"][0] == "registry.example/app:1"


def test_a_damaged_archive_is_refused(device: Device, tmp_path: Path) -> None:
    stick = tmp_path / "app.tar"
    device.edge("export", device.reference, "--to", str(stick), service=False)
    data = bytearray(stick.read_bytes())
    data[len(data) // 2] ^= 1
    stick.write_bytes(data)
    assert "Copy it again" in device.edge("import", str(stick), code=2)
    stick.write_bytes(data[: len(data) // 2])
    assert "breaks off" in device.edge("import", str(stick), code=2)
    assert device.json("ls") == []


def test_without_a_service_it_says_so(device: Device) -> None:
    device.made.service.kill()
    assert "the image service does not answer" in device.edge("ls", code=3)
    device.made.service.start()
