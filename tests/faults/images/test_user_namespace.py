"""A container with a user namespace of its own on an image that has not arrived: Podman maps, and reads little."""

import hashlib
import json
import random
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.images.soci.layers import member, tar
from tests.support.narrow_link import NarrowLink
from tests.support.podman import PodmanService
from tests.support.registry import Registry
from tests.support.served_images import PushedImage, ServedImages, push_indexed, served_images

pytestmark = [pytest.mark.podman, pytest.mark.registry, pytest.mark.timeout(180)]

MAPPING = ("--uidmap=0:100000:65536", "--gidmap=0:100000:65536")
DATA = [random.Random(number).randbytes(100 << 10) for number in range(24)]
FAST = 100e6


@dataclass(frozen=True, slots=True)
class World:
    """A Podman whose additional image store is the service's, and one image in it."""

    podman: PodmanService
    images: ServedImages
    link: NarrowLink
    image: PushedImage
    image_id: str

    def run(self, script: str, *flags: str) -> list[str]:
        """Run a shell script in a new container; what it printed, in words."""
        limits = self.podman.ulimit_flags()
        command = ("--rm", "--network=none", *limits, *flags, self.image_id, "/bin/sh", "-c", script)
        return self.podman.run_cli("run", *command).split()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # Podman wants short paths.
    with (
        Registry(tmp_path / "registry") as registry,
        NarrowLink(registry.port, FAST) as link,
        tempfile.TemporaryDirectory(prefix="p-", dir="/tmp") as folder,
        served_images(tmp_path, link.address, "--background-kib-per-second", "200") as images,
    ):
        image = push_indexed(registry, "mapped", _layer())
        podman = PodmanService(Path(folder), images.store)
        image_id = images.prepare(image)["imageId"]
        podman.start()
        try:
            yield World(podman, images, link, image, image_id)
        finally:
            podman.stop()


def test_files_belong_to_the_users_of_the_container_and_hold_what_they_held(world: World) -> None:
    owners = "stat -c %u:%g /bin/busybox /data/03 /home/app"
    found = world.run(f"{owners}; sha256sum /data/03; cat /proc/self/uid_map", *MAPPING)
    digest = hashlib.sha256(DATA[3]).hexdigest()
    assert found == ["0:0", "0:0", "1000:1000", digest, "/data/03", "0", "100000", "65536"]


def test_what_it_changes_it_owns_and_the_image_keeps_its_own(world: World) -> None:
    script = "echo more >> /data/04; touch /home/app/new; stat -c %u:%g:%s /data/04 /home/app/new"
    assert world.run(script, *MAPPING) == [f"0:0:{len(DATA[4]) + 5}", "0:0:0"]
    assert world.images.read(world.image, "data/04") == DATA[4]
    assert world.run("stat -c %u:%g:%s /data/04") == [f"0:0:{len(DATA[4])}"]


def test_it_starts_without_the_rest_of_the_image(world: World) -> None:
    if not json.loads((world.images.state_dir / "session.json").read_bytes())["idmap"]:
        pytest.skip("FUSE maps users from Linux 6.12 on; before, Podman copies the image for each mapping")
    assert world.run("echo up", *MAPPING) == ["up"]
    assert world.images.image(world.image_id)["state"] == "STARTABLE"


def test_it_goes_on_over_the_death_of_the_service_and_over_the_unpacking(world: World) -> None:
    limits = world.podman.ulimit_flags()
    command = ("--detach", "--network=none", *limits, *MAPPING, world.image_id, "/bin/sleep", "1000")
    container = world.podman.run_cli("run", *command)
    world.images.kill()
    world.images.start()
    script = "sha256sum /data/1?; stat -c %u:%g /home/app"
    wanted = [
        word for number in range(10, 20) for word in (hashlib.sha256(DATA[number]).hexdigest(), f"/data/{number}")
    ]
    assert world.podman.run_cli("exec", container, "/bin/sh", "-c", script).split() == [*wanted, "1000:1000"]
    world.images.wait_until_unpacked(world.image_id)
    assert world.podman.run_cli("exec", container, "/bin/sh", "-c", script).split() == [*wanted, "1000:1000"]


def _layer() -> bytes:
    applets = ("sh", "cat", "stat", "sha256sum", "touch", "sleep", "echo")
    return tar(
        tarfile.PAX_FORMAT,
        (member("bin/busybox", mode=0o755), Path("/bin/busybox").read_bytes()),
        *((member(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox"), b"") for name in applets),
        *((member(f"data/{number:02}"), data) for number, data in enumerate(DATA)),
        (member("home/app/", tarfile.DIRTYPE, mode=0o755, uid=1000, gid=1000), b""),
    )
