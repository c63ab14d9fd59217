"""Artifacts that refer to an image: how their manifests are written, and how they get into its registry."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edge.errors import NotFoundError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import OCI_MANIFEST, Descriptor, Index, digest_of
from edge.images.oci.layout import OciLayout
from edge.images.oci.references import ImageReference
from edge.images.soci.manifests import EMPTY_CONFIG
from edge.images.soci.ztoc import MAX_ZTOC_BYTES
from edge.images.starts.bundle import ARTIFACT_TYPE, CREATED, BundleEntry, entry_of


def write_artifact(
    kind: str,
    blobs: Sequence[tuple[Descriptor, Mapping[str, str]]],
    subject: Descriptor,
    annotations: Mapping[str, str],
) -> bytes:
    """Encode an artifact's manifest: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md."""
    config = Descriptor(kind, digest_of(EMPTY_CONFIG), len(EMPTY_CONFIG))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": _json(config),
        "layers": [_json(blob) | ({"annotations": dict(notes)} if notes else {}) for blob, notes in blobs],
        "subject": _json(subject),
        "annotations": dict(annotations),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _json(blob: Descriptor) -> dict[str, Any]:
    return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}


def push_bundle(client: RegistryClient, reference: ImageReference, layout: OciLayout) -> tuple[BundleEntry, ...]:
    """Push a layout's bundles of an image that the registry has; the image stays as it is.

    Raises:
        NotFoundError: The layout has none of this image.
        EdgeError: As the client's methods.
    """
    root = client.manifest(reference)
    subjects = [entry.digest for entry, _ in root.manifests] if isinstance(root, Index) else [root.digest]
    pushed: list[BundleEntry] = []
    for subject in dict.fromkeys(subjects):
        pushed += [
            _push(client, reference, layout, subject, found.digest)
            for found in layout.referrers(reference, subject, ARTIFACT_TYPE)
        ]
    if not pushed:
        raise NotFoundError(
            f"{layout.where} has no bundle of {reference} as the registry has it",
            hint="Build it from the registry's image: edge image bundle build.",
        )
    return tuple(pushed)


def _push(
    client: RegistryClient, reference: ImageReference, layout: OciLayout, subject: str, digest: str
) -> BundleEntry:
    manifest = layout.manifest(layout.reference().at(digest))
    for blob in () if isinstance(manifest, Index) else manifest.layers:
        client.push_blob(reference, layout.blob(reference, blob, MAX_ZTOC_BYTES))
    client.push_blob(reference, EMPTY_CONFIG)
    notes = {} if isinstance(manifest, Index) else manifest.annotations
    listed = Descriptor(OCI_MANIFEST, digest, len(manifest.data), notes, ARTIFACT_TYPE)
    if not client.push_manifest(reference.at(digest), manifest.data, OCI_MANIFEST):
        client.add_referrer(reference, subject, listed, instead=True)
    return entry_of(listed)


def find_bundles(found: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the bundles of a list of referrers, the newest first."""
    bundles = [one for one in found if one.artifact_type == ARTIFACT_TYPE]
    return tuple(sorted(bundles, key=lambda one: one.annotations.get(CREATED, ""), reverse=True))
