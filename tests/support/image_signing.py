"""Signatures in a registry, where cosign puts them."""

import base64
import json
from collections.abc import Sequence

from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import OCI_MANIFEST, Descriptor, digest_of
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.oci.registries import Registries
from edge.model.image_trust.evidence import FoundSignature
from tests.support.podman import PodmanService

_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


def registry_client(podman: PodmanService) -> RegistryClient:
    """A client that knows what this Podman knows of registries."""
    return RegistryClient(Registries((podman.folder / "registries.conf",), ()), {})


def repository(reference: str) -> str:
    """Without tag and digest."""
    return parse_reference(reference).name


def digest_at(client: RegistryClient, reference: str) -> str:
    """What a tag means."""
    return digest_of(client.manifest(parse_reference(reference)).data)


def push_signatures(
    client: RegistryClient, reference: str, digest: str, signatures: Sequence[FoundSignature], *, refers: bool = False
) -> None:
    """Under the tag `sha256-<hex>.sig`, or as an artifact that refers to the image."""
    where = parse_reference(reference)
    layers = [_layer(client, where, one) for one in signatures]
    config = client.push_blob(where, b"{}")
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": _ARTIFACT if refers else _CONFIG, "digest": config.digest, "size": config.size},
        "layers": layers,
    }
    if not refers:
        tagged = ImageReference(where.registry, where.repository, f"{digest.replace(':', '-')}.sig")
        client.push_manifest(tagged, json.dumps(document).encode(), OCI_MANIFEST)
        return
    subject = {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}
    data = json.dumps({**document, "artifactType": _ARTIFACT, "subject": subject}).encode()
    if not client.push_manifest(where.at(digest_of(data)), data, OCI_MANIFEST):
        found = Descriptor(OCI_MANIFEST, digest_of(data), len(data), artifact_type=_ARTIFACT)
        client.add_referrer(where, digest, found)


def _layer(client: RegistryClient, where: ImageReference, found: FoundSignature) -> dict[str, object]:
    payload = client.push_blob(where, found.payload)
    annotations = {
        "dev.cosignproject.cosign/signature": base64.b64encode(found.signature).decode(),
        "dev.sigstore.cosign/certificate": found.certificate.decode(),
        "dev.sigstore.cosign/chain": found.chain.decode(),
        "dev.sigstore.cosign/bundle": found.log_entry.decode(),
    }
    kept = {name: value for name, value in annotations.items() if value}
    return {"mediaType": _PAYLOAD, "digest": payload.digest, "size": payload.size, "annotations": kept}
