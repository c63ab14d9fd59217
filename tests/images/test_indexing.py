"""Indexes of whole images, in a real registry and in layouts: built alike each time, found again, and held to truth."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from edge.errors import EdgeError, InvalidInputError, NotFoundError
from edge.images.indexing.build import BuiltImage, IndexOptions, build_indexes
from edge.images.indexing.found import find_indexes, load_ztoc, summarize
from edge.images.indexing.push import push_image, push_referring
from edge.images.indexing.verify import Finding, verify_index
from edge.images.oci.client import RegistryClient
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST, Descriptor, Index
from edge.images.oci.layout import OciLayout
from edge.images.oci.layout_writer import LayoutWriter
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.oci.registries import Registries
from edge.images.soci import manifests
from edge.images.soci.checkpoints import span_table
from edge.images.soci.manifests import INDEX_DIGEST, IndexVersion, SociIndex, write_index
from edge.images.soci.ztoc import write_ztoc
from tests.images.soci.layers import noise, text
from tests.support import oci_layout
from tests.support.lazy_image import Member, layer_tar
from tests.support.registry import Registry

SPAN: Final = 64 << 10
V1: Final = IndexOptions(span_size=SPAN, min_layer_size=10_000)
V2: Final = replace(V1, version=IndexVersion.V2)
COMPACT: Final = replace(V1, version=IndexVersion.COMPACT)
LARGE: Final = layer_tar(
    Member("usr/", kind=b"5"),
    Member("usr/words", text(1, 700_000)),
    # Longer than a piece in which layers are read.
    Member("usr/noise", noise(2, 1_200_000)),
    Member("usr/capable", b"x", xattrs={"user.mime": "text/plain"}),
)
PLAIN: Final = layer_tar(Member("etc/", kind=b"5"), Member("etc/words", text(3, 400_000)))
SMALL: Final = layer_tar(Member("etc/motd", b"hello"))


class Place:
    """An image, where it is read, and how a blob of it can be changed behind everybody's back."""

    def __init__(self, reader: ContentReader, reference: ImageReference, blob_file: Callable[[str], Path]) -> None:
        self.reader, self.reference, self.blob_file = reader, reference, blob_file

    def build(self, folder: Path, options: IndexOptions = V1, name: str = "") -> tuple[BuiltImage, ...]:
        return build_indexes(self.reader, self.reference, LayoutWriter(folder), options, name)

    def problems(self) -> tuple[Finding, ...]:
        found = [one for _, indexes in find_indexes(self.reader, self.reference) for one in indexes]
        assert found
        return tuple(two for one in found for two in verify_index(self.reader, self.reference, one))

    def change(self, digest: str, at: int) -> None:
        path = self.blob_file(digest)
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)


def written(folder: Path, *architectures: str) -> Path:
    """A layout with an image of three layers for each architecture."""
    layout = oci_layout.OciLayout(folder)
    images = [layout.image([SMALL, LARGE, PLAIN], {"Cmd": [one]}, one) for one in architectures]
    layout.finish(*images, tag="1")
    return folder


def blob_in(folder: Path) -> Callable[[str], Path]:
    return lambda digest: folder / "blobs" / digest.replace(":", "/")


@pytest.fixture
def in_layout(tmp_path: Path) -> Place:
    folder = written(tmp_path / "image", "amd64", "arm64")
    layout = OciLayout.at(folder)
    return Place(layout, layout.reference("1"), blob_in(folder))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """Its own for each test: some damage what it has."""
    with Registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def in_registry(registry: Registry, tmp_path: Path) -> Place:
    name = "shop/app"
    layout = oci_layout.OciLayout(tmp_path / "pushed")
    layout.finish(*(layout.image([SMALL, LARGE, PLAIN], {"Cmd": [one]}, one) for one in ("amd64", "arm64")))
    layout.push(registry, name)
    conf = tmp_path / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
    store = registry.log_file.parent / "store" / "docker" / "registry" / "v2" / "blobs" / "sha256"
    return Place(
        RegistryClient(Registries((conf,)), {"HOME": str(tmp_path)}),
        parse_reference(f"{registry.address}/{name}:latest"),
        lambda digest: store / digest[7:9] / digest[7:] / "data",
    )


def client_of(place: Place) -> RegistryClient:
    assert isinstance(place.reader, RegistryClient)
    return place.reader


def test_a_version_1_index_is_found_in_the_registry_and_is_right(in_registry: Place, tmp_path: Path) -> None:
    built = in_registry.build(tmp_path / "index")
    pushed = push_referring(
        client_of(in_registry), in_registry.reference, OciLayout.at(tmp_path / "index"), IndexVersion.V1
    )
    assert set(pushed.indexes) == {image.index_digest for image in built}
    assert pushed.others == ()
    for image, indexes in find_indexes(in_registry.reader, in_registry.reference):
        [found] = indexes
        assert found.version is IndexVersion.V1
        assert found.index is not None
        assert found.index.subject is not None
        assert found.index.subject.digest == image.manifest.digest
        small, large, plain = summarize(in_registry.reader, in_registry.reference, found)
        assert small.ztoc is None
        assert large.files == 4
        assert 1_900_000 < large.uncompressed_size <= len(LARGE)
        assert large.spans > 5
        assert plain.ztoc is not None
        assert plain.ztoc.span_size == SPAN
    assert in_registry.problems() == ()


def test_a_version_2_index_comes_with_a_new_image_of_the_same_layers(in_registry: Place, tmp_path: Path) -> None:
    before = in_registry.reader.manifest(in_registry.reference)
    built = in_registry.build(tmp_path / "index", V2, "lazy")
    target = replace(in_registry.reference, tag="lazy")
    pushed = push_image(client_of(in_registry), target, OciLayout.at(tmp_path / "index"), "lazy")
    after = Place(in_registry.reader, target, in_registry.blob_file)
    root = after.reader.manifest(target)
    assert isinstance(root, Index)
    assert pushed.image == manifests.digest_of(root.data)
    assert in_registry.reader.manifest(in_registry.reference) == before
    for image, indexes in find_indexes(after.reader, target):
        assert image.manifest.annotations[INDEX_DIGEST] == indexes[0].digest
        assert indexes[0].version is IndexVersion.V2
    assert [image.index_digest for image in built] == list(pushed.indexes)
    assert after.reader.image(target, "arm64").layers == after.reader.image(in_registry.reference, "arm64").layers
    assert after.problems() == ()


def test_the_same_image_gives_the_same_bytes_again(in_layout: Place, tmp_path: Path) -> None:
    for options, name in ((V1, ""), (V2, "lazy"), (COMPACT, "")):
        made = []
        for folder in (tmp_path / f"{name}1", tmp_path / f"{name}2"):
            in_layout.build(folder, options, name)
            files = (path for path in folder.rglob("*") if path.is_file())
            made.append({path.relative_to(folder): path.read_bytes() for path in files})
        assert made[0] == made[1]


def test_an_index_beside_its_image_in_a_layout_is_found_and_right(in_layout: Place, tmp_path: Path) -> None:
    folder = tmp_path / "image"
    in_layout.build(folder)
    assert in_layout.problems() == ()
    in_layout.build(folder, replace(V1, span_size=2 * SPAN))
    for _, indexes in find_indexes(in_layout.reader, in_layout.reference):
        assert [one.index.ztocs[0].span_size for one in indexes if one.index is not None] == [2 * SPAN]
    assert in_layout.problems() == ()


def test_version_2_in_a_layout_leaves_the_image_it_was_made_from(in_layout: Place, tmp_path: Path) -> None:
    before = in_layout.reader.manifest(in_layout.reference)
    in_layout.build(tmp_path / "image", V2, "lazy")
    layout = OciLayout.at(tmp_path / "image")
    assert layout.manifest(layout.reference("1")) == before
    lazy = Place(layout, layout.reference("lazy"), in_layout.blob_file)
    assert len(find_indexes(layout, lazy.reference)) == 2
    assert lazy.problems() == ()


def test_one_platform_can_be_chosen_and_an_unknown_one_is_refused(in_layout: Place, tmp_path: Path) -> None:
    [image] = in_layout.build(tmp_path / "image", replace(V1, platforms=("arm64",)))
    assert image.platform == "linux/arm64"
    told = {one.name: len(indexes) for one, indexes in find_indexes(in_layout.reader, in_layout.reference)}
    assert told == {"linux/amd64": 0, "linux/arm64": 1}
    with pytest.raises(NotFoundError, match="no image for linux/riscv64") as caught:
        in_layout.build(tmp_path / "other", replace(V1, platforms=("linux/riscv64",)))
    assert "linux/amd64, linux/arm64" in caught.value.hint


def test_an_image_of_one_platform_becomes_an_image_index_in_version_2(tmp_path: Path) -> None:
    layout = OciLayout.at(written(tmp_path / "image", "arm64"))
    Place(layout, layout.reference(), blob_in(tmp_path / "image")).build(tmp_path / "image", V2, "lazy")
    root = layout.manifest(layout.reference("lazy"))
    assert isinstance(root, Index)
    assert [platform.architecture for _, platform in root.manifests] == ["arm64", "arm64"]
    assert [entry.artifact_type for entry, _ in root.manifests] == ["", IndexVersion.V2.value]


def test_layers_of_both_images_are_read_once_and_small_ones_not(in_layout: Place, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    images = build_indexes(
        in_layout.reader, in_layout.reference, LayoutWriter(tmp_path / "index"), V1,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    small, large, plain = images[0].layers
    assert "less than 10000" in small.skipped
    assert told[-1] == (large.layer.size + plain.layer.size,) * 2
    assert told == sorted(told)
    assert images[0].layers == images[1].layers


def test_an_image_of_small_layers_only_has_no_index(in_layout: Place, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="can have an index") as caught:
        in_layout.build(tmp_path / "index", IndexOptions())
    assert "--min-layer-size" in caught.value.hint


def test_xattrs_are_said_to_be_absent_only_where_asked_for_and_true(in_layout: Place, tmp_path: Path) -> None:
    [image, _] = in_layout.build(tmp_path / "one")
    assert not any(layer.ztoc.disable_xattrs for layer in image.layers if layer.ztoc)
    [image, _] = in_layout.build(tmp_path / "two", replace(V1, disable_xattrs=True))
    assert [layer.ztoc.disable_xattrs for layer in image.layers if layer.ztoc] == [False, True]


def test_a_layer_that_no_ztoc_describes_is_left_out_with_its_reason(tmp_path: Path) -> None:
    layout = oci_layout.OciLayout(tmp_path / "image")
    odd = layer_tar(Member("words", text(5, 300_000)), Member("../up", b"x"))
    layout.finish(layout.image([odd, LARGE], {}, "arm64"))
    read = OciLayout.at(layout.folder)
    [image] = build_indexes(read, read.reference(), LayoutWriter(tmp_path / "index"), V1)
    assert "leads out" in image.layers[0].skipped
    assert image.layers[1].ztoc is not None


def test_a_damaged_layer_is_not_indexed(in_layout: Place, tmp_path: Path) -> None:
    layer = in_layout.reader.image(in_layout.reference, "arm64").layers[1]
    in_layout.change(layer.digest, layer.size // 2)
    with pytest.raises(InvalidInputError, match=f"layer {layer.digest} is damaged"):
        in_layout.build(tmp_path / "index")
    assert OciLayout.at(tmp_path / "index").entries() == ()


@pytest.mark.parametrize("place", ["in_layout", "in_registry"])
def test_a_changed_byte_of_a_layer_names_layer_and_span(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    here: Place = request.getfixturevalue(place)
    _publish(here, tmp_path)
    layer = here.reader.image(here.reference, "arm64").layers[1]
    found = next(one for image, [one] in find_indexes(here.reader, here.reference) if image.name == "linux/arm64")
    assert found.index is not None
    entry = found.index.ztoc_of(layer.digest)
    assert entry is not None
    at = layer.size // 2
    here.change(layer.digest, at)
    problems = verify_index(here.reader, here.reference, found)
    assert {one.layer for one in problems} == {layer.digest}
    assert any("layer itself is damaged" in one.problem for one in problems)
    assert [one.span for one in problems if one.span is not None] == [_span_at(here, entry, at)]


def _publish(here: Place, tmp_path: Path) -> None:
    if isinstance(here.reader, RegistryClient):
        here.build(tmp_path / "index")
        push_referring(here.reader, here.reference, OciLayout.at(tmp_path / "index"), IndexVersion.V1)
    else:
        here.build(tmp_path / "image")


def _span_at(here: Place, entry: manifests.ZtocEntry, at: int) -> int:
    spans = span_table(load_ztoc(here.reader, here.reference, entry)).spans
    return next(span.number for span in spans if span.compressed_start < at < span.compressed_end - 1)


@pytest.mark.parametrize("place", ["in_layout", "in_registry"])
def test_a_changed_byte_of_a_ztoc_is_found(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    here: Place = request.getfixturevalue(place)
    _publish(here, tmp_path)
    [(_, [found]), _] = find_indexes(here.reader, here.reference)
    assert found.index is not None
    here.change(found.index.ztocs[0].blob.digest, 1000)
    [problem] = verify_index(here.reader, here.reference, found)
    assert problem.layer == found.index.ztocs[0].layer_digest
    assert "cannot be used" in problem.problem


def changed_ztoc(change: str, ztoc: Any) -> Any:
    """A zTOC that is well formed, named by its own digest, and lies."""
    if change == "window":
        block = bytearray(ztoc.checkpoints)
        block[12 + 32785 + 17 + 32767 - 40 : 12 + 32785 + 17 + 32768] = bytes(41)
        return replace(ztoc, checkpoints=bytes(block))
    if change == "digest":
        return replace(ztoc, span_digests=(*ztoc.span_digests[:2], ztoc.span_digests[0], *ztoc.span_digests[3:]))
    if change == "shorter":
        return replace(ztoc, uncompressed_size=ztoc.uncompressed_size - 512)
    files = list(ztoc.files)
    if change == "member":
        files[1] = files[1]._replace(mode=0o4755)
    else:
        del files[3]
    return replace(ztoc, files=tuple(files))


@pytest.mark.parametrize(
    ("change", "span", "told"),
    [
        ("window", 1, "inflates to other bytes"),
        ("digest", 2, "has digest"),
        ("member", None, "member 'usr/words' has mode 420, the zTOC says 2541"),
        ("shorter", None, "bytes, the zTOC says"),
        ("missing", None, "the zTOC leaves out 'usr/capable'"),
    ],
)
def test_a_well_formed_ztoc_that_lies_is_found(
    in_layout: Place, tmp_path: Path, change: str, span: int | None, told: str
) -> None:
    in_layout.build(tmp_path / "image")
    (image, [found]), _ = find_indexes(in_layout.reader, in_layout.reference)
    assert found.index is not None
    entry = found.index.ztocs[0]
    data = write_ztoc(changed_ztoc(change, load_ztoc(in_layout.reader, in_layout.reference, entry)))
    blob = LayoutWriter(tmp_path / "image").add(data)
    forged = replace(entry, blob=manifests.Descriptor("application/octet-stream", blob.digest, blob.size))
    index = replace(found.index, ztocs=(forged,))
    problems = verify_index(in_layout.reader, in_layout.reference, replace(found, index=index))
    assert problems[0].layer == image.manifest.layers[1].digest
    assert problems[0].span == span
    assert told in problems[0].problem


def test_hidden_xattrs_and_layers_of_another_image_are_found(in_layout: Place, tmp_path: Path) -> None:
    in_layout.build(tmp_path / "image")
    (_, [found]), _ = find_indexes(in_layout.reader, in_layout.reference)
    assert found.index is not None
    one, two = found.index.ztocs
    hidden = replace(found.index, ztocs=(replace(one, disable_xattrs=True),))
    [problem] = verify_index(in_layout.reader, in_layout.reference, replace(found, index=hidden))
    assert "hides extended attributes" in problem.problem
    strange = replace(found.index, ztocs=(replace(two, layer_digest=f"sha256:{'0' * 64}"),), subject=None)
    told = verify_index(in_layout.reader, in_layout.reference, replace(found, index=strange))
    assert [one.problem.partition(" sha256")[0] for one in told] == [
        "it does not refer to the image", "the image has no such layer",
    ]  # fmt: skip


def test_an_index_that_is_named_and_not_there_is_a_finding(in_layout: Place, tmp_path: Path) -> None:
    in_layout.build(tmp_path / "image", V2, "lazy")
    layout = OciLayout.at(tmp_path / "image")
    reference = layout.reference("lazy")
    (_, [found]), _ = find_indexes(layout, reference)
    in_layout.blob_file(found.digest).unlink()
    (_, [found]), _ = find_indexes(layout, reference)
    [problem] = verify_index(layout, reference, found)
    assert "has no" in problem.problem
    with pytest.raises(EdgeError, match="cannot be used"):
        summarize(layout, reference, found)


def test_the_index_of_another_image_is_not_pushed(in_registry: Place, tmp_path: Path) -> None:
    other = written(tmp_path / "other", "riscv64")
    layout = OciLayout.at(other)
    build_indexes(layout, layout.reference(), LayoutWriter(other), V1)
    with pytest.raises(NotFoundError, match="no v1 index of"):
        push_referring(client_of(in_registry), in_registry.reference, layout, IndexVersion.V1)


def test_an_image_whose_layers_the_registry_has_not_is_not_pushed(in_registry: Place, tmp_path: Path) -> None:
    other = oci_layout.OciLayout(tmp_path / "other")
    other.finish(other.image([layer_tar(Member("words", text(8, 300_000)))], {}, "arm64"))
    layout = OciLayout.at(other.folder)
    build_indexes(layout, layout.reference(), LayoutWriter(other.folder), V2, "lazy")
    target = replace(in_registry.reference, tag="lazy")
    with pytest.raises(InvalidInputError, match="has no blob") as caught:
        push_image(client_of(in_registry), target, layout, "lazy")
    assert "Push the image itself" in caught.value.hint
    with pytest.raises(EdgeError):
        in_registry.reader.manifest(target)


def test_a_second_index_of_version_1_names_the_first(in_registry: Place, tmp_path: Path) -> None:
    in_registry.build(tmp_path / "one")
    first = push_referring(
        client_of(in_registry), in_registry.reference, OciLayout.at(tmp_path / "one"), IndexVersion.V1
    )
    in_registry.build(tmp_path / "two", replace(V1, span_size=2 * SPAN))
    second = push_referring(
        client_of(in_registry), in_registry.reference, OciLayout.at(tmp_path / "two"), IndexVersion.V1
    )
    assert set(second.others) == set(first.indexes)
    again = push_referring(
        client_of(in_registry), in_registry.reference, OciLayout.at(tmp_path / "one"), IndexVersion.V1
    )
    assert set(again.others) == set(second.indexes)


def test_an_index_reads_back_as_it_was_written(in_layout: Place, tmp_path: Path) -> None:
    in_layout.build(tmp_path / "image")
    for _, [found] in find_indexes(in_layout.reader, in_layout.reference):
        assert isinstance(found.index, SociIndex)
        assert manifests.digest_of(write_index(found.index)) == found.digest
    listed = json.loads((tmp_path / "image" / "index.json").read_bytes())["manifests"]
    assert [one.get("artifactType") for one in listed] == [None, IndexVersion.V1.value, IndexVersion.V1.value]
    assert Descriptor(OCI_MANIFEST, listed[1]["digest"], listed[1]["size"]).size > 0


def test_an_image_in_docker_types_with_an_attestation_is_indexed_in_oci_types(tmp_path: Path) -> None:
    folder = written(tmp_path / "image", "arm64")
    layout, writer = OciLayout.at(folder), LayoutWriter(folder)
    document = json.loads(layout.image(layout.reference(), "arm64").data)
    document["mediaType"] = DOCKER_MANIFEST
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    for one in document["layers"]:
        one["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    attestation = {"schemaVersion": 2, "config": document["config"], "layers": []}
    entries = [
        {"mediaType": kind, "digest": added.digest, "size": added.size, "platform": platform}
        for kind, added, platform in (
            (DOCKER_MANIFEST, writer.add(json.dumps(document).encode()), {"os": "linux", "architecture": "arm64"}),
            (OCI_MANIFEST, writer.add(json.dumps(attestation).encode()), {"os": "unknown", "architecture": "unknown"}),
        )
    ]
    root = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}
    writer.list_manifest(writer.add(json.dumps(root).encode(), DOCKER_LIST), "docker")
    [image] = build_indexes(layout, layout.reference("docker"), writer, V2, "lazy")
    bound = layout.manifest(layout.reference("lazy"))
    assert isinstance(bound, Index)
    assert [platform.os for _, platform in bound.manifests] == ["linux", "unknown", "linux"]
    assert {entry.media_type for entry, _ in bound.manifests} == {OCI_MANIFEST}
    assert bound.manifests[0][0].digest == image.manifest_digest
    assert Place(layout, layout.reference("lazy"), blob_in(folder)).problems() == ()


def test_a_layer_that_inflates_alike_and_has_other_bytes_is_damaged(in_layout: Place, tmp_path: Path) -> None:
    layer = in_layout.reader.image(in_layout.reference, "arm64").layers[1]
    time_in_gzip_header = 4
    in_layout.change(layer.digest, time_in_gzip_header)
    with pytest.raises(InvalidInputError, match=f"layer {layer.digest} is damaged: the layer has digest"):
        in_layout.build(tmp_path / "index")


def test_a_ztoc_of_a_longer_layer_is_found(in_layout: Place, tmp_path: Path) -> None:
    in_layout.build(tmp_path / "image")
    (image, [found]), _ = find_indexes(in_layout.reader, in_layout.reference)
    assert found.index is not None
    entry = found.index.ztocs[0]
    ztoc = load_ztoc(in_layout.reader, in_layout.reference, entry)
    blob = LayoutWriter(tmp_path / "image").add(write_ztoc(replace(ztoc, compressed_size=ztoc.compressed_size + 7)))
    forged = replace(entry, blob=manifests.Descriptor("application/octet-stream", blob.digest, blob.size))
    told = verify_index(
        in_layout.reader, in_layout.reference, replace(found, index=replace(found.index, ztocs=(forged,)))
    )
    size = image.manifest.layers[1].size
    assert [one.problem for one in told] == [f"its zTOC is for a layer of {size + 7} bytes; it has {size}"]


def test_a_configuration_that_names_another_tar_is_found(in_layout: Place, tmp_path: Path) -> None:
    in_layout.build(tmp_path / "image")
    (image, [found]), _ = find_indexes(in_layout.reader, in_layout.reference)
    wrong = replace(image.configuration, diff_ids=(f"sha256:{'0' * 64}",) * 3)
    changed = replace(found, image=replace(image, configuration=wrong))
    told = verify_index(in_layout.reader, in_layout.reference, changed)
    assert [one.problem.endswith(f"the image's configuration says sha256:{'0' * 64}") for one in told] == [True, True]
