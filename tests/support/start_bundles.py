"""Start bundles for tests: built as `edge image bundle build` builds them, taken apart, and pushed right or wrong."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import OCI_MANIFEST, Descriptor, digest_of, host_architecture
from edge.images.oci.layout import OciLayout
from edge.images.oci.layout_writer import LayoutWriter
from edge.images.oci.references import parse_reference
from edge.images.oci.registries import Registries
from edge.images.soci.manifests import EMPTY_CONFIG
from edge.images.starts import zstd
from edge.images.starts.artifact import write_artifact
from edge.images.starts.bundle import (
    ARTIFACT_TYPE,
    BUNDLE_MEDIA_TYPE,
    MAX_BLOB_BYTES,
    MAX_UNPACKED_HEAD_BYTES,
    BundleEntry,
    BundleHead,
    annotations_of,
    block_digests,
    encode_head,
    read_head,
)
from edge.images.starts.bundle_build import build_bundle
from edge.model.start_profile import FileRange, StartProfile
from tests.support.lazy_rig import TestImage, write_registries
from tests.support.registry import Registry


@dataclass(frozen=True, slots=True)
class Parts:
    """A bundle, taken apart.

    Attributes:
        tocs: The layers' zTOCs without windows.
        ztocs: Their whole zTOCs, as they are stored.
        subject: The image's manifest.
    """

    head: BundleHead
    tocs: tuple[bytes, ...]
    payload: bytes
    ztocs: tuple[bytes, ...]
    subject: Descriptor

    def saying(self, payload: bytes) -> "Parts":
        """The same with another payload, whose digests its head has."""
        return replace(self, payload=payload, head=replace(self.head, digests=block_digests(payload)))

    def packed(self) -> tuple[bytes, bytes]:
        """The head, and the whole blob."""
        head = zstd.compress(encode_head(self.head, self.tocs), 3)
        return head, head + zstd.compress([self.payload], 3) + b"\0"


def profile_for(image: TestImage, names: Sequence[str], registry: Registry) -> StartProfile:
    """A start that reads these files whole, in this order."""
    ranges = tuple(FileRange(name, 0, 1 << 20) for name in names)
    repository = f"{registry.address}/{image.name.partition(':')[0]}"
    return StartProfile(repository, "0" * 64, "", f"linux/{host_architecture()}", 1, ranges)


def client_for(registry: Registry) -> RegistryClient:
    """A client of a registry without TLS."""
    with tempfile.TemporaryDirectory() as name:
        conf = Path(name) / "registries.conf"
        write_registries(conf, registry.address)
        return RegistryClient(Registries((conf,)), {})


def parts_of(registry: Registry, image: TestImage, names: Sequence[str]) -> Parts:
    """Build a bundle and take it apart."""
    client, reference = client_for(registry), parse_reference(f"{registry.address}/{image.name}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        built = build_bundle(client, reference, LayoutWriter(folder / "layout"), profile_for(image, names, registry))
        layout = OciLayout.at(folder / "layout")
        blob = layout.blob(reference, built.entry.blob, MAX_BLOB_BYTES)
        unpacked = zstd.unpack(blob[: built.entry.head_size], MAX_UNPACKED_HEAD_BYTES)
        (folder / "head").write_bytes(unpacked)
        head = read_head(folder / "head")
        payload = zstd.unpack(blob[built.entry.head_size : -1], head.size)
        tocs = tuple(unpacked[at : at + size] for at, size in (layer.toc for layer in head.layers))
        ztocs = tuple(layout.blob(reference, layer.ztoc, 1 << 26) for layer in head.layers)
    manifest = built.image.manifest
    return Parts(head, tocs, payload, ztocs, Descriptor(manifest.media_type, manifest.digest, len(manifest.data)))


def push_parts(
    registry: Registry,
    image: TestImage,
    parts: Parts,
    *,
    blob: bytes | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Push a bundle of an image, in the place of others; `blob` and `notes` instead of what would be right."""
    client, reference = client_for(registry), parse_reference(f"{registry.address}/{image.name}")
    head, right = parts.packed()
    stored = client.push_blob(reference, right if blob is None else blob)
    client.push_blob(reference, EMPTY_CONFIG)
    ztocs = [client.push_blob(reference, one) for one in parts.ztocs]
    descriptor = replace(stored, media_type=BUNDLE_MEDIA_TYPE)
    entry = BundleEntry("", descriptor, len(head), digest_of(head), "2026-01-01T00:00:00+00:00")
    told = annotations_of(entry, len(parts.payload)) | dict(notes or {})
    manifest = write_artifact(ARTIFACT_TYPE, [(descriptor, {}), *((one, {}) for one in ztocs)], parts.subject, told)
    client.push_manifest(reference.at(digest_of(manifest)), manifest, OCI_MANIFEST)
    listed = Descriptor(OCI_MANIFEST, digest_of(manifest), len(manifest), told, ARTIFACT_TYPE)
    client.add_referrer(reference, parts.subject.digest, listed, instead=True)
