"""Manifests, indexes and configurations: what is there is read, and anything else is refused with our own error."""

import contextlib
import hashlib
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.errors import ImagePullError, InvalidInputError
from edge.images.oci.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAXIMUM_CONFIGURATION,
    MAXIMUM_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Index,
    Manifest,
    parse_configuration,
    parse_manifest,
)

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
NAMES = ["mediaType", "config", "layers", "manifests", "digest", "size", "platform", "annotations", "rootfs"]
NAMES += ["diff_ids", "architecture", "os", "variant", "artifactType", "created", "schemaVersion"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([DIGEST, OCI_INDEX]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=25,
)
BLOB = {"mediaType": "application/x", "digest": DIGEST, "size": 7}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": BLOB, "layers": [BLOB, BLOB]}
INDEX = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [BLOB | {"platform": {"os": "linux", "architecture": "arm64"}}],
}
CONFIGURATION = {"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}


def data(document: object) -> bytes:
    return json.dumps(document).encode()


def index(*platforms: dict[str, str]) -> Index:
    listed = [
        {"digest": f"sha256:{number:064x}", "size": 1, "platform": platform}
        for number, platform in enumerate(platforms)
    ]
    found = parse_manifest(data({"mediaType": OCI_INDEX, "manifests": listed}))
    assert isinstance(found, Index)
    return found


# --- what is read


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_is_read(kind: str) -> None:
    found = parse_manifest(data(MANIFEST | {"mediaType": kind, "annotations": {"a": "b"}}))
    assert isinstance(found, Manifest)
    assert found.media_type == kind
    assert [layer.digest for layer in found.layers] == [DIGEST, DIGEST]
    assert found.config.size == 7
    assert found.annotations == {"a": "b"}
    assert found.digest == f"sha256:{hashlib.sha256(found.data).hexdigest()}"


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_an_index_is_read(kind: str) -> None:
    found = parse_manifest(data(INDEX | {"mediaType": kind}))
    assert isinstance(found, Index)
    assert found.choose("arm64").digest == DIGEST


def test_the_type_comes_from_the_answer_where_the_document_has_none() -> None:
    document = {key: value for key, value in MANIFEST.items() if key != "mediaType"}
    assert isinstance(parse_manifest(data(document), OCI_MANIFEST), Manifest)
    assert isinstance(parse_manifest(data(document), f"{OCI_MANIFEST}; charset=utf-8"), Manifest)
    with pytest.raises(InvalidInputError, match="type none"):
        parse_manifest(data(document))


def test_a_document_that_is_a_manifest_and_an_index_at_once_is_refused() -> None:
    for kind in (OCI_MANIFEST, OCI_INDEX):
        with pytest.raises(InvalidInputError, match="at once"):
            parse_manifest(data(MANIFEST | INDEX | {"mediaType": kind}))


def test_a_configuration_is_read() -> None:
    found = parse_configuration(data(CONFIGURATION | {"created": "2026-01-02T03:04:05Z"}))
    assert (found.architecture, found.created, found.diff_ids) == ("arm64", "2026-01-02T03:04:05Z", (DIGEST,))
    assert found.image_id == hashlib.sha256(found.data).hexdigest()


# --- platforms


def test_an_attestation_is_not_an_image() -> None:
    unknown = {"os": "unknown", "architecture": "unknown"}
    assert index(unknown, {"os": "linux", "architecture": "arm64"}).choose("arm64").digest.endswith("1")


def test_an_image_without_an_architecture_of_ours_says_which_there_are() -> None:
    with pytest.raises(ImagePullError, match=r"for linux/amd64, windows/arm64, this device is linux/arm64") as told:
        index({"os": "windows", "architecture": "arm64"}, {"os": "linux", "architecture": "amd64"}).choose("arm64")
    assert told.value.hint
    with pytest.raises(ImagePullError, match="for nothing"):
        index().choose("arm64")


@pytest.mark.parametrize(
    ("architecture", "variants", "chosen"),
    [
        ("arm64", ["", "v8"], "v8"),
        ("arm64", ["v8", "v9"], "v8"),
        ("arm64", ["v9", ""], ""),
        ("amd64", ["", "v3"], ""),
        ("amd64", ["v3", "v1"], "v1"),
        ("arm", ["v6", "v7", "v5"], "v7"),
        ("arm", ["v6", "v8"], "v6"),
    ],
)
def test_no_variant_is_chosen_that_every_device_may_not_run(
    architecture: str, variants: list[str], chosen: str
) -> None:
    found = index(*({"os": "linux", "architecture": architecture, "variant": one} for one in variants))
    assert int(found.choose(architecture).digest.removeprefix("sha256:"), 16) == variants.index(chosen)


def test_the_first_of_several_equal_images_is_chosen() -> None:
    same = {"os": "linux", "architecture": "arm64"}
    assert index(same, same).choose("arm64").digest.endswith("0")


# --- what is refused


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 10_000,
        data(MANIFEST)[:-1],
        data(MANIFEST | {"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}),
        data(MANIFEST | {"layers": None}),
        data(MANIFEST | {"layers": {"digest": DIGEST}}),
        data(MANIFEST | {"layers": [DIGEST]}),
        data(MANIFEST | {"layers": [BLOB] * 501}),
        data(MANIFEST | {"config": None}),
        data(MANIFEST | {"config": BLOB | {"digest": "sha512:" + "a" * 128}}),
        data(MANIFEST | {"config": BLOB | {"digest": DIGEST + "/../x"}}),
        data(MANIFEST | {"config": BLOB | {"digest": DIGEST.upper()}}),
        data(MANIFEST | {"config": BLOB | {"size": -1}}),
        data(MANIFEST | {"config": BLOB | {"size": 1.5}}),
        data(MANIFEST | {"config": BLOB | {"size": "7"}}),
        data(MANIFEST | {"config": BLOB | {"size": True}}),
        data(MANIFEST | {"config": BLOB | {"size": 1 << 63}}),
        data({"mediaType": OCI_INDEX}),
        data({"mediaType": OCI_INDEX, "manifests": [7]}),
        b" " * (MAXIMUM_MANIFEST + 1),
    ],
)
def test_what_is_no_manifest_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_manifest(document)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"[" * 200_000,
        b"{}",
        data({"rootfs": None}),
        data({"rootfs": {"diff_ids": None}}),
        data({"rootfs": {"diff_ids": [7]}}),
        data({"rootfs": {"diff_ids": ["../../etc"]}}),
        data({"rootfs": {"diff_ids": [DIGEST] * 501}}),
        b" " * (MAXIMUM_CONFIGURATION + 1),
    ],
)
def test_what_is_no_configuration_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_configuration(document)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | JSON.map(data), st.sampled_from(["", OCI_MANIFEST, OCI_INDEX]))
@example(data({"mediaType": [], "manifests": []}), "")
def test_any_bytes_are_a_manifest_or_refused(document: bytes, kind: str) -> None:
    with contextlib.suppress(InvalidInputError):
        parse_manifest(document, kind)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | JSON.map(data))
def test_any_bytes_are_a_configuration_or_refused(document: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        parse_configuration(document)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NAMES),
    JSON,
    st.sampled_from([MANIFEST, INDEX, CONFIGURATION]),
    st.sampled_from(["inside", "outside"]),
)
def test_a_good_document_with_one_wrong_field_is_read_or_refused(
    name: str, value: object, document: dict[str, object], where: str
) -> None:
    key = "manifests" if document is INDEX else "layers"
    changed = document | ({key: [BLOB | {name: value}]} if where == "inside" else {name: value})
    for parse in (parse_manifest, parse_configuration):
        with contextlib.suppress(InvalidInputError):
            parse(data(changed))
    if document is INDEX:
        with contextlib.suppress(InvalidInputError, ImagePullError):
            found = parse_manifest(data(changed))
            if isinstance(found, Index):
                found.choose("arm64")


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255))
def test_a_manifest_with_one_wrong_byte_is_read_or_refused(position: int, byte: int) -> None:
    document = bytearray(data(MANIFEST))
    document[position % len(document)] = byte
    with contextlib.suppress(InvalidInputError):
        parse_manifest(bytes(document))
