"""What a registry has of an image's signatures: fetched, bounded, and believed by nobody here.

Two places are looked at, as cosign writes to them: the tag `sha256-<hex>.sig` beside the image, and the manifest's
referrers (OCI 1.1) of cosign's artifact type. Both hold manifests whose layers are the signed payloads, with the
signature, certificate and log entry as annotations (github.com/sigstore/cosign `specs/SIGNATURE_SPEC.md`).
"""

import base64
import binascii
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from edge.errors import EdgeError, InvalidInputError, RegistryUnavailableError, TransientError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor, Index, Manifest, digest_of
from edge.images.oci.http import REASON
from edge.images.oci.references import ImageReference
from edge.model.image_trust.evidence import (
    MAXIMUM_SIGNATURE_BYTES,
    MAXIMUM_SIGNATURES,
    MAXIMUM_SIGNATURES_BYTES,
    Evidence,
    FoundSignature,
)

_PAYLOAD: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
_ARTIFACT: Final = "application/vnd.dev.cosign.artifact.sig.v1+json"
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_CERTIFICATE: Final = "dev.sigstore.cosign/certificate"
_CHAIN: Final = "dev.sigstore.cosign/chain"
_LOG_ENTRY: Final = "dev.sigstore.cosign/bundle"


@dataclass(slots=True)
class _Basket:
    """Signatures, as many as may be."""

    signatures: dict[FoundSignature, None] = field(default_factory=dict)
    left_out: int = 0
    size: int = 0
    payloads: dict[str, bytes] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return len(self.signatures) >= MAXIMUM_SIGNATURES

    def put(self, found: FoundSignature) -> None:
        too_large = found.size > MAXIMUM_SIGNATURE_BYTES or self.size + found.size > MAXIMUM_SIGNATURES_BYTES
        if self.full or too_large:
            self.left_out += 1
        elif found not in self.signatures:
            self.signatures[found] = None
            self.size += found.size


def gather(
    client: RegistryClient,
    reference: ImageReference,
    architecture: str,
    seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> Evidence:
    """Fetch an image's manifest and what there is of signatures of it, and of the index that lists it.

    Args:
        client: The registries.
        reference: The image.
        architecture: As OCI names it.
        seconds: For all of it.
        now: Seconds on a clock that only goes forward.

    Raises:
        RegistryUnavailableError: Nobody answered, or not in time.
        ImagePullError: There is no such image for this architecture.
        InvalidInputError: Its manifest is malformed.
    """
    deadline = now() + seconds
    meant = client.manifest(reference)
    index = meant.data if isinstance(meant, Index) else b""
    manifest = client.image(reference.at(digest_of(meant.data)), architecture) if isinstance(meant, Index) else meant
    basket = _Basket()
    for digest in dict.fromkeys((digest_of(meant.data), manifest.digest)):
        for found in _manifests(client, reference, digest, basket):
            for layer in found.layers:
                if now() > deadline:
                    raise RegistryUnavailableError(
                        f"the signatures of {reference} did not come in {seconds:g} s", reason=REASON
                    )
                _take(client, reference, layer, basket)
    return Evidence(index, manifest.data, tuple(basket.signatures), basket.left_out)


def _manifests(client: RegistryClient, reference: ImageReference, digest: str, basket: _Basket) -> Iterator[Manifest]:
    tagged = ImageReference(reference.registry, reference.repository, f"{digest.replace(':', '-')}.sig")
    places = [tagged, *(reference.at(one.digest) for one in _referrers(client, reference, digest))]
    for place in places:
        try:
            found = client.find_manifest(place)
        except InvalidInputError:
            # Malformed, or with more layers than any image has: a flood, and not a reason to look no further.
            basket.left_out += 1
            continue
        if isinstance(found, Manifest):
            yield found


def _referrers(client: RegistryClient, reference: ImageReference, digest: str) -> tuple[Descriptor, ...]:
    try:
        return client.referrers(reference, digest, _ARTIFACT)
    except TransientError:
        raise
    except EdgeError:
        # A registry that has no notion of referrers may say so in any way.
        return ()


def _take(client: RegistryClient, reference: ImageReference, layer: Descriptor, basket: _Basket) -> None:
    if layer.media_type != _PAYLOAD or _SIGNATURE not in layer.annotations:
        return
    if basket.full or layer.size > MAXIMUM_SIGNATURE_BYTES:
        basket.left_out += 1
        return
    try:
        signature = base64.b64decode(layer.annotations[_SIGNATURE], validate=True)
        payload = basket.payloads.get(layer.digest)
        if payload is None:
            # Who signs the same image signs the same payload: it is fetched once.
            payload = client.blob(reference, layer, MAXIMUM_SIGNATURE_BYTES)
            basket.payloads[layer.digest] = payload
    except TransientError:
        raise
    except (binascii.Error, ValueError, EdgeError):
        basket.left_out += 1
        return
    more = (layer.annotations.get(name, "").encode() for name in (_CERTIFICATE, _CHAIN, _LOG_ENTRY))
    basket.put(FoundSignature(payload, signature, *more))
