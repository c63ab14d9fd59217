"""From a first start to a bundle in the registry, by the commands; and what a fleet's devices have told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.cli import main
from edge.images.oci.documents import host_architecture
from edge.images.soci.prefetch import read_prefetch
from edge.model.start_profile import FileRange, StartProfile
from edge.model.start_profiles_document import encode_profiles
from tests.cli.bench import Bench
from tests.support.lazy_rig import Rig, TestImage, content, push_image, rig, write_registries
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture(autouse=True)
def image(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TestImage:
    conf = tmp_path / "registries.conf"
    write_registries(conf, registry.address)
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    return push_image(registry, "app", [content(1), {"top/file": content(2, 1)["data/00"]}])


@pytest.fixture
def made(tmp_path: Path, registry: Registry) -> Iterator[Rig]:
    (tmp_path / "rig").mkdir()
    with rig(tmp_path / "rig", registry, "--background-kib-per-second", "1") as running:
        yield running


def _edge(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--output", "json"]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    return json.loads(printed) if printed else None


def test_what_was_recorded_becomes_a_bundle_and_a_prefetch_artifact(
    made: Rig, registry: Registry, image: TestImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = ("--socket", str(made.service.socket))
    reference, file = f"{registry.address}/{image.name}", tmp_path / "app.profile"
    found = made.prepare(image)
    made.read(made.path(image, "data/09"))
    made.read(made.path(image, "top/file", 1))
    made.service.ask("ready", image=found["imageId"])

    own = f"{made.proxy.address}/{image.name}"
    assert [one["imageId"] for one in _edge(capsys, "image", "profile", "show", *socket)] == [found["imageId"]]
    assert _edge(capsys, "image", "profile", "show", own, *socket)["ranges"][0][0] == "data/09"
    assert main(["image", "profile", "export", own, "--to", str(file), *socket]) == 0
    assert main(["image", "profile", "import", str(file), *socket]) == 0

    told = _edge(capsys, "image", "bundle", "push", reference, "--profile", str(file))
    assert told["startBytes"] == 2 * (96 << 10)
    assert told["size"] < told["imageBytes"]
    [shown] = _edge(capsys, "image", "bundle", "show", reference)
    assert (shown["bundle"], shown["size"], shown["startBytes"]) == (told["bundle"], told["size"], told["startBytes"])

    [pushed] = _edge(capsys, "image", "profile", "push", reference, "--profile", str(file))
    assert pushed["version"] == "compact"
    index = registry.get(f"app/manifests/{pushed['index']}", "application/vnd.oci.image.manifest.v1+json")
    artifacts = [one for one in index["layers"] if "prefetch" in one["mediaType"]]
    documents = [json.dumps(registry.get(f"app/blobs/{one['digest']}")).encode() for one in artifacts]
    order = sorted(one.priority for data in documents for one in read_prefetch(data, 1000))
    assert (len(artifacts), order) == (2, list(range(1, len(order) + 1)))


def test_a_bundle_is_built_into_a_folder_and_pushed_from_there(
    registry: Registry, image: TestImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, file, folder = f"{registry.address}/{image.name}", tmp_path / "p", tmp_path / "bundle"
    ranges = (FileRange("data/03", 0, 1000),)
    file.write_bytes(StartProfile("", "", "", f"linux/{host_architecture()}", 1, ranges).encode())
    built = _edge(capsys, "image", "bundle", "build", reference, "--profile", str(file), "--output-dir", str(folder))
    [pushed] = _edge(capsys, "image", "bundle", "push", reference, "--from", str(folder))
    assert pushed["bundle"] == built["bundle"]
    # Built anew it takes the former one's place.
    again = _edge(capsys, "image", "bundle", "push", reference, "--profile", str(file))
    assert [one["bundle"] for one in _edge(capsys, "image", "bundle", "show", reference)] == [again["bundle"]]


@pytest.mark.parametrize("words", [("bundle", "show"), ("bundle", "push", "--from", "/nowhere")])
def test_what_is_not_there_is_told(registry: Registry, image: TestImage, words: tuple[str, ...]) -> None:
    assert main(["image", words[0], words[1], f"{registry.address}/{image.name}", *words[2:]]) == 3


def test_a_profile_of_other_files_makes_no_bundle(registry: Registry, image: TestImage, tmp_path: Path) -> None:
    file = tmp_path / "p"
    ranges = (FileRange("other", 0, 1000),)
    file.write_bytes(StartProfile("", "", "", f"linux/{host_architecture()}", 1, ranges).encode())
    reference = f"{registry.address}/{image.name}"
    assert main(["image", "bundle", "push", reference, "--profile", str(file)]) == 2


def test_what_all_devices_told_is_merged(bench: Bench, registry: Registry, tmp_path: Path) -> None:
    name, platform = f"{registry.address}/app", f"linux/{host_architecture()}"
    for device, path in (("pi-1", "data/01"), ("pi-2", "data/12")):
        if device != "pi-1":
            assert bench.edge("device", "add", device, "--out", str(tmp_path / device)).code == 0
        fake = bench.device(name=device)
        profile = StartProfile(name, "a" * 64, "", platform, 1, (FileRange(path, 0, 1 << 20),))
        fake.publish(fake.topics.profiles, json.loads(encode_profiles([profile], 10_000)), retain=True)
    to = ("--output-dir", str(tmp_path / "bundle"), "--output", "json")
    ran = bench.edge("image", "bundle", "build", f"{name}:1", "--from-fleet", *to)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["startBytes"] == 2 * (96 << 10)
