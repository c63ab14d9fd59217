"""What the registry client and a real registry make of each other."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import ImagePullError, RegistryUnavailableError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, digest_of
from edge.images.oci.http import Patience
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.oci.registries import Registries
from tests.support.oci_layout import OciLayout, busybox_image, busybox_layer, host_architecture, layer
from tests.support.registry import Registry

pytestmark = pytest.mark.registry

NOBODY = "sha256:" + "0" * 64
INDEX_TYPE = "application/vnd.amazon.soci.index.v1+json"
EMPTY = b"{}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def client(registry: Registry, tmp_path: Path) -> Iterator[RegistryClient]:
    made = client_of(registry, tmp_path)
    yield made
    made.close()


def client_of(registry: Registry, folder: Path, *, insecure: bool = True) -> RegistryClient:
    configuration = folder / "registries.conf"
    configuration.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = {str(insecure).lower()}\n')
    home = {"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    return RegistryClient(Registries((configuration,)), home, Patience(attempts=2, sleep=lambda _: None))


def named(registry: Registry, rest: str) -> ImageReference:
    return parse_reference(f"{registry.address}/{rest}")


def push_image(client: RegistryClient, reference: ImageReference, *layers: bytes) -> Manifest:
    config = client.push_blob(reference, EMPTY)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [
            described(client.push_blob(reference, one), "application/vnd.oci.image.layer.v1.tar") for one in layers
        ],
    }
    client.push_manifest(reference, json.dumps(document).encode(), OCI_MANIFEST)
    found = client.manifest(reference)
    assert isinstance(found, Manifest)
    return found


def push_referrer(client: RegistryClient, reference: ImageReference, kind: str, name: str) -> Descriptor:
    config = described(client.push_blob(reference, EMPTY), "application/vnd.oci.empty.v1+json")
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind, "config": config, "layers": []}
    data = json.dumps(document | {"annotations": {"name": name}}).encode()
    client.push_manifest(reference.at(digest_of(data)), data, OCI_MANIFEST)
    return Descriptor(OCI_MANIFEST, digest_of(data), len(data), {}, kind)


def described(blob: Descriptor, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size}


def test_what_is_pushed_is_found_by_its_tag_and_by_its_digest(client: RegistryClient, registry: Registry) -> None:
    reference = named(registry, "pushed:1")
    manifest = push_image(client, reference, b"one layer")
    assert client.manifest(reference.at(manifest.digest)) == manifest
    assert registry.get("pushed/manifests/1", OCI_MANIFEST) == json.loads(manifest.data)
    assert client.blob(reference, manifest.config, 100) == EMPTY
    assert client.blob(reference, manifest.layers[0], 100) == b"one layer"


def test_an_image_that_skopeo_pushed_is_read_with_its_configuration(client: RegistryClient, registry: Registry) -> None:
    reference = parse_reference(busybox_image(registry, "hello", ["true"], files={"etc/motd": b"hi\n"}))
    manifest = client.image(reference, host_architecture())
    configuration = client.configuration(reference, manifest)
    assert configuration.architecture == host_architecture()
    assert len(configuration.diff_ids) == len(manifest.layers) == 2
    assert f"sha256:{configuration.image_id}" == manifest.config.digest


def test_an_index_leads_to_the_image_for_each_platform(
    client: RegistryClient, registry: Registry, tmp_path: Path
) -> None:
    layout = OciLayout(tmp_path / "layout")
    images = {arch: layout.image([busybox_layer()], {}, arch) for arch in ("amd64", "arm64")}
    layout.finish(*images.values())
    layout.push(registry, "both")
    reference = named(registry, "both")
    assert isinstance(client.manifest(reference), Index)
    for arch, image in images.items():
        assert client.image(reference, arch).digest == image.digest
    with pytest.raises(ImagePullError, match="is for linux/amd64, linux/arm64, this device is linux/riscv64"):
        client.image(reference, "riscv64")


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 100), (1, 99_999), (65_535, 2), (99_999, 1), (0, 100_000)])
def test_any_part_of_a_blob_is_read(client: RegistryClient, registry: Registry, offset: int, size: int) -> None:
    data = bytes(range(256)) * 391
    data = data[:100_000]
    reference = named(registry, "parts:1")
    blob = client.push_blob(reference, data)
    assert b"".join(client.chunks(reference, blob, offset, size)) == data[offset : offset + size]


def test_a_large_layer_arrives_in_pieces(client: RegistryClient, registry: Registry) -> None:
    data = layer({"large": os.urandom(5 << 20)})
    reference = named(registry, "large:1")
    blob = client.push_blob(reference, data)
    pieces = list(client.chunks(reference, blob, 0, blob.size))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 64 * 1024


def test_a_blob_is_there_after_it_was_pushed_and_not_before(client: RegistryClient, registry: Registry) -> None:
    reference = named(registry, "blobs:1")
    assert not client.has_blob(reference, digest_of(b"a blob"))
    blob = client.push_blob(reference, b"a blob")
    assert client.has_blob(reference, blob.digest)
    assert client.push_blob(reference, b"a blob") == blob


def test_what_is_not_there_is_told_in_the_registrys_words(client: RegistryClient, registry: Registry) -> None:
    for reference in (named(registry, "nobody:1"), named(registry, "nobody").at(NOBODY)):
        with pytest.raises(ImagePullError, match=r"answered 404.*manifest unknown") as told:
            client.manifest(reference)
        assert told.value.hint
        assert not isinstance(told.value, RegistryUnavailableError)
    with pytest.raises(ImagePullError, match=r"answered 404.*blob unknown"):
        client.blob(named(registry, "nobody"), Descriptor("", NOBODY, 3), 10)


def test_referrers_are_listed_where_the_registry_has_no_api_for_them(
    client: RegistryClient, registry: Registry
) -> None:
    reference = named(registry, "referred:1")
    subject = push_image(client, reference, b"subject").digest
    assert client.referrers(reference, subject, INDEX_TYPE) == ()
    first, second, other = (
        push_referrer(client, reference, kind, name)
        for kind, name in ((INDEX_TYPE, "first"), (INDEX_TYPE, "second"), ("application/spdx+json", "other"))
    )
    for one in (first, other, second, first):
        client.add_referrer(reference, subject, one)
    found = client.referrers(reference, subject, INDEX_TYPE)
    assert sorted(one.digest for one in found) == sorted([first.digest, second.digest])
    assert client.referrers(reference, subject, other.artifact_type) == (other,)


def test_the_registry_says_that_it_does_not_list_referrers_itself(client: RegistryClient, registry: Registry) -> None:
    reference = named(registry, "subject:1")
    image = push_image(client, reference, b"subject")
    document = json.loads(image.data) | {
        "artifactType": INDEX_TYPE,
        "subject": {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.data)},
    }
    data = json.dumps(document).encode()
    assert client.push_manifest(reference.at(digest_of(data)), data, OCI_MANIFEST) is False


def test_an_index_is_pushed_like_a_manifest(client: RegistryClient, registry: Registry) -> None:
    reference = named(registry, "index:all")
    image = push_image(client, named(registry, "index:1"), b"layer")
    entry = {"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.data)}
    platform = {"platform": {"os": "linux", "architecture": "arm64"}}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry | platform]}
    client.push_manifest(reference, json.dumps(document).encode(), OCI_INDEX)
    assert client.image(reference, "arm64") == image


def test_plain_http_is_spoken_only_where_it_is_allowed(registry: Registry, tmp_path: Path) -> None:
    strict = client_of(registry, tmp_path, insecure=False)
    with pytest.raises(RegistryUnavailableError, match="does not answer") as told:
        strict.manifest(named(registry, "hello:1"))
    assert "insecure" in told.value.hint


def test_a_registry_that_is_gone_and_comes_back_is_asked_again(tmp_path: Path) -> None:
    with Registry(tmp_path / "store") as registry:
        client = client_of(registry, tmp_path)
        reference = named(registry, "kept:1")
        blob = client.push_blob(reference, b"kept")
        registry.kill()
        with pytest.raises(RegistryUnavailableError, match="does not answer"):
            client.blob(reference, blob, 10)
        registry.start()
        assert client.blob(reference, blob, 10) == b"kept"
        client.close()
