"""`edge image index` as an operator uses it: against a real registry, and between folders."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.images.soci.layers import noise, text
from tests.support.lazy_image import Member, layer_tar
from tests.support.oci_layout import OciLayout
from tests.support.registry import Registry

ROOT: Final = Path(__file__).resolve().parents[2]
LAYER: Final = layer_tar(Member("words", text(1, 3_000_000)), Member("noise", noise(2, 100_000)))
SMALL: Final = ("--min-layer-size", "100KiB", "--span-size", "256KiB")


class Shop:
    """An operator's machine: an image in a folder and in a registry."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self.folder = folder
        layout = OciLayout(folder / "app")
        layout.finish(*(layout.image([LAYER], {"Cmd": [one]}, one) for one in ("amd64", "arm64")), tag="1")
        layout.push(registry, "shop/app", "1")
        self.image = f"{registry.address}/shop/app:1"
        self.conf = folder / "registries.conf"
        self.conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')

    def edge(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            (sys.executable, "-m", "edge", "image", "index", *arguments),
            check=False, capture_output=True, text=True, cwd=self.folder, timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CONTAINERS_REGISTRIES_CONF": str(self.conf)},
        )  # fmt: skip
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.edge(*arguments, "--output", "json", code=code).stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Registry(tmp_path / "registry") as registry:
        yield Shop(tmp_path, registry)


@pytest.mark.parametrize("version", ["compact", "v1"])
def test_push_show_and_verify_in_a_registry(shop: Shop, version: str) -> None:
    pushed = shop.json("push", shop.image, "--index-version", version, *SMALL)
    assert len(pushed["indexes"]) == 2
    assert [one["platform"] for one in pushed["images"]] == ["linux/amd64", "linux/arm64"]
    shown = shop.json("show", shop.image)
    assert [one["digest"] for one in shown] == pushed["indexes"]
    assert {one["version"] for one in shown} == {version}
    [layer] = shown[0]["layers"]
    assert layer["spanSize"] == 256 << 10
    assert layer["files"] == 2
    assert layer["ztoc"] == pushed["images"][0]["layers"][0]["ztoc"]
    told = shop.edge("verify", shop.image).stdout
    assert re.findall(rf"^linux/(\w+): {version} index sha256:\w+ is (\w+)$", told, re.MULTILINE) == [
        ("amd64", "right"), ("arm64", "right"),
    ]  # fmt: skip


def test_build_first_and_push_what_was_built(shop: Shop) -> None:
    built = shop.json("build", shop.image, "--output-dir", "index", "--platform", "arm64", *SMALL)
    pushed = shop.json("push", shop.image, "--from", "index")
    assert pushed["indexes"] == [built["images"][0]["index"]]
    [shown] = shop.json("show", shop.image)
    assert shown["platform"] == "linux/arm64"


def test_version_2_makes_a_new_tag(shop: Shop) -> None:
    pushed = shop.json("push", shop.image, "--index-version", "v2", "--tag", "lazy", *SMALL)
    target = f"{shop.image.rpartition(':')[0]}:lazy"
    shown = shop.json("show", target)
    assert [one["digest"] for one in shown] == pushed["indexes"]
    assert {one["version"] for one in shown} == {"v2"}
    shop.edge("verify", target)
    assert "has no index" in shop.edge("show", shop.image, code=3).stderr


def test_an_index_goes_into_a_layouts_own_folder_and_is_verified_there(shop: Shop) -> None:
    told = shop.edge("build", "oci:app", *SMALL)
    assert "PLATFORM" in told.stdout
    assert "index sha256:" in told.stderr
    assert shop.edge("verify", "oci:app:1").stdout.count("right") == 2
    subprocess.run(
        ("skopeo", "copy", "--all", "--quiet", "oci:app:1", "oci-archive:app.tar:1"), cwd=shop.folder, check=True
    )
    assert (
        shop.json("build", "oci-archive:app.tar:1", "--output-dir", "index", *SMALL)["images"]
        == (shop.json("build", "oci:app", *SMALL)["images"])
    )


def test_verify_names_what_is_wrong_and_exits_with_1(shop: Shop) -> None:
    built = shop.json("build", "oci:app", *SMALL)
    layer = built["images"][0]["layers"][0]
    path = shop.folder / "app" / "blobs" / layer["digest"].replace(":", "/")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = shop.json("verify", "oci:app", code=1)
    assert {one["layer"] for one in found["problems"]} == {layer["digest"]}
    assert {one["span"] for one in found["problems"]} > {None}
    told = shop.edge("verify", "oci:app", code=1).stdout
    assert "WRONG" in told
    assert "layer itself is damaged" in told


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("build", "oci:app", "--index-version", "v2"), 2, "belong together"),
        (("build", "oci:app", "--tag", "x"), 2, "belong together"),
        (("build", "oci:app", "--span-size", "4MB"), 2, "is no size"),
        (("build", "oci:app", "--span-size", "1"), 2, "a span size is"),
        (("build", "oci:app", "--platform", "s390x", *SMALL), 3, "It has: linux/amd64, linux/arm64"),
        (("build", "oci:app", "--min-layer-size", "10MiB"), 2, "can have an index"),
        (("build", "oci:app:2"), 3, "It has: 1."),
        (("build", "oci-archive:app"), 2, "Write oci:app"),
        (("build", "oci:registries.conf"), 2, "Write oci-archive:registries.conf"),
        (("build", "oci:nothing"), 3, "there is no nothing"),
        (("build", "oci:"), 2, "names no path"),
        (("show", "oci:app"), 3, "edge image index push"),
        (("push", "app:1"), 2, "names no registry"),
        (("push", "oci:app"), 2, "registry"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(shop: Shop, arguments: tuple[str, ...], code: int, told: str) -> None:
    assert told in shop.edge(*arguments, code=code).stderr


def test_an_archive_needs_a_folder_to_write_to(shop: Shop) -> None:
    assert "--output-dir" in shop.edge("build", shop.image, *SMALL, code=2).stderr
