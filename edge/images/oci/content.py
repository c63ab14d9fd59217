"""What can be read of images, wherever they are: in a registry, in a folder, in an archive."""

from collections.abc import Iterator
from typing import Protocol

from edge.images.oci.documents import Configuration, Descriptor, Index, Manifest
from edge.images.oci.references import ImageReference


class ContentReader(Protocol):
    """The reading half of `RegistryClient`; `OciLayout` has it too.

    Methods raise `EdgeError`s: what is not there, what is malformed, what has another digest than it is named by.
    """

    def manifest(self, reference: ImageReference) -> Manifest | Index:
        """Return the manifest or index a reference means; verified if it names a digest."""
        ...

    def image(self, reference: ImageReference, architecture: str) -> Manifest:
        """Return the manifest for an architecture."""
        ...

    def configuration(self, reference: ImageReference, manifest: Manifest) -> Configuration:
        """Return an image's configuration."""
        ...

    def blob(self, reference: ImageReference, blob: Descriptor, most: int) -> bytes:
        """Return a blob of up to `most` bytes, verified."""
        ...

    def chunks(self, reference: ImageReference, blob: Descriptor, offset: int, size: int) -> Iterator[bytes]:
        """Yield `size` bytes of a blob from `offset` on, unverified."""
        ...

    def referrers(self, reference: ImageReference, digest: str, artifact_type: str, /) -> tuple[Descriptor, ...]:
        """Return the artifacts of a type that refer to a manifest."""
        ...
