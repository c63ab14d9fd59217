"""Documents as the `soci` tool writes them (awslabs/soci-snapshotter `docs/index.md`, `soci_convert.go`)."""

import json
from typing import Any, Final

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.manifests import (
    BUILD_TOOL,
    IMAGE_MANIFEST_DIGEST,
    INDEX_DIGEST,
    LAYER_DIGEST,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    PREFETCH_MEDIA_TYPE,
    RECIPE_HEAD,
    RECIPE_MEDIA_TYPE,
    ZTOC_MEDIA_TYPE,
    Descriptor,
    IndexVersion,
    PrefetchEntry,
    RecipeEntry,
    SociIndex,
    ZtocEntry,
    annotate_manifest,
    bind_image_index,
    can_disable_xattrs,
    digest_of,
    index_digest_of,
    read_index,
    referrers,
    write_index,
)
from edge.images.soci.values import FileMetadata, FileType

LAYER: Final = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
AMD64: Final = {"architecture": "amd64", "os": "linux"}


def digest(digit: str) -> str:
    return f"sha256:{digit * 64}"


SUBJECT: Final = Descriptor(OCI_MANIFEST, digest("a"), 610)
ZTOCS: Final = (
    ZtocEntry(Descriptor(ZTOC_MEDIA_TYPE, digest("1"), 73208), digest("b"), LAYER, 4 << 20, disable_xattrs=True),
    ZtocEntry(Descriptor(ZTOC_MEDIA_TYPE, digest("2"), 99), digest("c"), LAYER, 4 << 20),
)
PREFETCHES: Final = (PrefetchEntry(Descriptor(PREFETCH_MEDIA_TYPE, digest("3"), 7), digest("b")),)
V1: Final = SociIndex(IndexVersion.V1, ZTOCS, PREFETCHES, SUBJECT)
V2: Final = SociIndex(IndexVersion.V2, ZTOCS, PREFETCHES)
RECIPES: Final = (RecipeEntry(Descriptor(RECIPE_MEDIA_TYPE, digest("4"), 900), digest("b"), 200, digest("5")),)
COMPACT: Final = SociIndex(IndexVersion.COMPACT, ZTOCS, (), SUBJECT, recipes=RECIPES)


def encoded(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def changed(path: str, value: Any) -> bytes:
    document = json.loads(write_index(V1))
    place = document
    *keys, last = path.split(".")
    for key in keys:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return encoded(document)


def test_an_index_has_the_bytes_that_soci_writes() -> None:
    empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    layer = {
        "mediaType": "application/octet-stream",
        "digest": digest("2"),
        "size": 99,
        "annotations": {
            "com.amazon.soci.image-layer-digest": digest("c"),
            "com.amazon.soci.image-layer-mediaType": LAYER,
            "com.amazon.soci.span-size": "4194304",
        },
    }
    expected = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.amazon.soci.index.v1+json", "digest": empty, "size": 2},
        "layers": [layer],
        "subject": {"mediaType": OCI_MANIFEST, "digest": digest("a"), "size": 610},
        "annotations": {"com.amazon.soci.build-tool-identifier": "AWS SOCI CLI v0.2"},
    }
    assert write_index(SociIndex(IndexVersion.V1, ZTOCS[1:], subject=SUBJECT)) == encoded(expected)


@pytest.mark.parametrize("index", [V1, V2, COMPACT, SociIndex(IndexVersion.V2, (), annotations={})])
def test_an_index_that_is_written_is_read_again(index: SociIndex) -> None:
    assert read_index(write_index(index)) == index


def test_characters_that_go_escapes_are_escaped() -> None:
    index = SociIndex(IndexVersion.V2, (), annotations={BUILD_TOOL: "<a&b>\u2028é"})
    assert rb"\u003ca\u0026b\u003e\u2028" + "é".encode() in write_index(index)
    assert read_index(write_index(index)) == index


def test_the_ztoc_of_a_layer_is_found_and_small_layers_have_none() -> None:
    assert V2.ztoc_of(digest("c")) == ZTOCS[1]
    assert V2.ztoc_of(digest("d")) is None


def test_the_recipe_of_a_layer_is_found() -> None:
    assert COMPACT.recipe_of(digest("b")) == RECIPES[0]
    assert COMPACT.recipe_of(digest("c")) is None


@pytest.mark.parametrize(
    "head", ["", "200", f"-1 {digest('5')}", f"901 {digest('5')}", "200 sha256:5", f"x {digest('5')}"]
)
def test_a_recipe_whose_head_is_none_is_refused(head: str) -> None:
    document = json.loads(write_index(COMPACT))
    document["layers"][-1]["annotations"][RECIPE_HEAD] = head
    with pytest.raises(InvalidInputError):
        read_index(encoded(document))


def test_an_index_of_an_old_tool_has_no_span_size() -> None:
    document = json.loads(write_index(V2))
    del document["layers"][0]["annotations"]["com.amazon.soci.span-size"]
    assert read_index(encoded(document)).ztocs[0].span_size is None


def test_layers_of_other_types_are_passed_over() -> None:
    assert read_index(changed("layers.0.mediaType", "application/x-newer")).ztocs == ZTOCS[1:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b" " * (MAX_MANIFEST_BYTES + 1),
        b"\xff\xfe",
        changed("config.mediaType", "application/vnd.amazon.soci.index.v3+json"),
        changed("config.mediaType", OCI_CONFIG),
        changed("config.mediaType", ["a"]),
        changed("config", None),
        changed("layers", None),
        changed("layers", {}),
        changed("layers", [{}] * 5000),
        changed("layers.0.digest", "sha256:" + "A" * 64),
        changed("layers.0.digest", "sha512:" + "a" * 64),
        changed("layers.0.digest", "../../etc/passwd"),
        changed("layers.0.digest", None),
        changed("layers.0.size", -1),
        changed("layers.0.size", 1 << 63),
        changed("layers.0.size", value=True),
        changed("layers.0.size", "5"),
        changed("layers.0.mediaType", None),
        changed("layers.0.annotations", None),
        changed("layers.0.annotations", {LAYER_DIGEST: "sha256:.."}),
        changed("layers.0.annotations", []),
        changed("subject", "a"),
        changed("subject.digest", "a"),
        changed("annotations", [1]),
    ],
)
def test_what_is_no_index_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_index(data)


@pytest.mark.parametrize("size", ["", "-1", "٤", "1e3", "9" * 30, " 4"])
def test_a_span_size_that_is_no_number_is_unknown(size: str) -> None:
    document = json.loads(write_index(V2))
    document["layers"][0]["annotations"]["com.amazon.soci.span-size"] = size
    assert read_index(encoded(document)).ztocs[0].span_size is None


def test_referrers_are_filtered_here_because_registries_may_not() -> None:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest(digit), "size": 5, "artifactType": kind}
        for digit, kind in (("1", "application/spdx+json"), ("2", IndexVersion.V1.value), ("3", IndexVersion.V2.value))
    ]
    answer = encoded({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [*entries, {"mediaType": "x"}]})
    assert referrers(answer) == (Descriptor(OCI_MANIFEST, digest("2"), 5),)


def test_xattrs_can_be_disabled_only_where_there_are_none_and_no_opaque_directory() -> None:
    plain = FileMetadata("a", FileType.REGULAR, 512, 0, pax=(("comment", b"x"),))
    assert can_disable_xattrs([plain])
    assert not can_disable_xattrs([plain, plain._replace(pax=(("SCHILY.xattr.user.a", b""),))])
    assert not can_disable_xattrs([plain._replace(name="opt/.wh..wh..opq")])


def image(**more: Any) -> bytes:
    layer = {"size": 8, "digest": digest("7"), "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}
    config = {"size": 9, "mediaType": DOCKER_CONFIG, "digest": digest("8")}
    return encoded({"mediaType": DOCKER_MANIFEST, "schemaVersion": 2, "layers": [layer], "config": config, **more})


def test_an_annotated_manifest_names_its_index_and_keeps_its_blobs() -> None:
    made = annotate_manifest(image(annotations={"z": "1", "a": "2"}), digest("5"))
    assert made == encoded(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest("8"), "size": 9},
            "layers": [
                {
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "digest": digest("7"),
                    "size": 8,
                }
            ],
            "annotations": {"a": "2", INDEX_DIGEST: digest("5"), "z": "1"},
        }
    )
    assert index_digest_of(made) == digest("5")


def test_a_manifest_without_an_index_names_none() -> None:
    assert index_digest_of(annotate_manifest(image(), None)) is None


def test_a_manifest_that_names_something_else_than_a_digest_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        index_digest_of(image(annotations={INDEX_DIGEST: "latest"}))


def test_a_single_manifest_becomes_an_image_index_with_its_soci_index() -> None:
    manifest, index = annotate_manifest(image(), digest("5")), write_index(V2)
    made = json.loads(bind_image_index(None, [(digest("9"), manifest, AMD64)], {digest("9"): index}))
    first, second = made["manifests"]
    assert made["mediaType"] == OCI_INDEX
    assert (first["digest"], first["annotations"]) == (digest_of(manifest), {INDEX_DIGEST: digest("5")})
    assert first["platform"] == second["platform"] == AMD64
    assert (second["digest"], second["artifactType"]) == (digest_of(index), IndexVersion.V2.value)
    assert second["annotations"] == {IMAGE_MANIFEST_DIGEST: digest_of(manifest)}


def test_binding_again_replaces_the_soci_index_of_the_platform() -> None:
    manifest = annotate_manifest(image(), digest("5"))
    first = bind_image_index(None, [(digest("9"), manifest, AMD64)], {digest("9"): write_index(V2)})
    other = write_index(SociIndex(IndexVersion.V2, ZTOCS))
    again = annotate_manifest(manifest, digest_of(other))
    second = bind_image_index(first, [(digest_of(manifest), again, AMD64)], {digest_of(manifest): other})
    assert [entry["digest"] for entry in json.loads(second)["manifests"]] == [digest_of(again), digest_of(other)]


def test_a_manifest_that_is_none_is_not_annotated() -> None:
    for data in (b"[]", b"{}", encoded({"config": {}, "layers": [1]}), image(annotations=5)):
        with pytest.raises(InvalidInputError):
            annotate_manifest(data, digest("5"))
    with pytest.raises(InvalidInputError):
        annotate_manifest(image(), "sha256:short")
