"""An index that says what is needed first: it is fetched at once, whatever waits for quiet."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor, digest_of, host_architecture
from edge.images.oci.references import parse_reference
from edge.images.oci.registries import Registries
from edge.images.soci import manifests
from edge.images.soci.builder import build_layer_index
from edge.images.soci.manifests import IndexVersion, PrefetchEntry, SociIndex, ZtocEntry
from edge.images.soci.prefetch import SpanRange, write_prefetch
from edge.images.soci.values import Compression
from edge.images.soci.ztoc import write_ztoc
from tests.support.lazy_rig import TestImage, content, push_image, rig, write_registries
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(120)]
SPAN = 128 << 10


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as running:
        yield running


def _push_with_prefetch(folder: Path, registry: Registry, data: bytes) -> TestImage:
    image = push_image(registry, "app", [content(1)], index="")
    conf = folder / "push.conf"
    write_registries(conf, registry.address)
    client, reference = RegistryClient(Registries((conf,)), {}), parse_reference(f"{registry.address}/{image.name}")
    manifest = client.image(reference, host_architecture())
    [layer] = manifest.layers
    ztoc = build_layer_index(client.chunks(reference, layer, 0, layer.size), Compression.GZIP, span_size=SPAN).ztoc
    stored = client.push_blob(reference, write_ztoc(ztoc))
    artifact = client.push_blob(reference, data)
    client.push_blob(reference, manifests.EMPTY_CONFIG)
    entry = ZtocEntry(
        manifests.Descriptor(manifests.ZTOC_MEDIA_TYPE, stored.digest, stored.size), layer.digest, layer.media_type
    )
    prefetch = PrefetchEntry(
        manifests.Descriptor(manifests.PREFETCH_MEDIA_TYPE, artifact.digest, artifact.size), layer.digest
    )
    subject = manifests.Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
    index = manifests.write_index(SociIndex(IndexVersion.V1, (entry,), (prefetch,), subject))
    client.push_manifest(reference.at(digest_of(index)), index, manifests.OCI_MANIFEST)
    kind = IndexVersion.V1.value
    client.add_referrer(
        reference, manifest.digest, Descriptor(manifests.OCI_MANIFEST, digest_of(index), len(index), artifact_type=kind)
    )
    return image


def test_what_it_names_comes_first_and_in_its_order(tmp_path: Path, registry: Registry) -> None:
    image = _push_with_prefetch(tmp_path, registry, write_prefetch([SpanRange(9, 10, 2), SpanRange(4, 4, 1)]))
    with rig(tmp_path, registry, "--background-kib-per-second", "50") as made:
        found = made.prepare(image)
        made.until(lambda: made.service.image(found["imageId"])["here"] > 0)
        ranges = [wanted for path, wanted in made.proxy.requests if "/blobs/" in path and wanted]
        map_file = made.service.state_dir / "layers" / image.layer_ids[0] / "blob.map"
        made.until(lambda: map_file.read_bytes()[4] == map_file.read_bytes()[9] == 1)
        assert map_file.read_bytes()[:4] == bytes(4), "nothing else came before"
        assert len(ranges) >= 1
        made.check(image)


@pytest.mark.parametrize("data", [b"{}", b"no json", write_prefetch([SpanRange(0, 100_000)])])
def test_one_that_cannot_be_used_is_as_none(tmp_path: Path, registry: Registry, data: bytes) -> None:
    image = _push_with_prefetch(tmp_path, registry, data)
    with rig(tmp_path, registry) as made:
        made.prepare(image)
        made.check(image)
        assert "prefetch artifact" in made.notes()
