"""Put indexes that were built into a layout into the registry that has the image."""

from dataclasses import dataclass

from edge.errors import InvalidInputError, NotFoundError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, digest_of
from edge.images.oci.layout import OciLayout
from edge.images.oci.references import ImageReference
from edge.images.soci.manifests import EMPTY_CONFIG, IndexVersion, read_index
from edge.images.soci.ztoc import MAX_ZTOC_BYTES


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is in the registry now.

    Attributes:
        indexes: Digests of the SOCI indexes.
        image: Version 2: digest of the new image index.
        others: Not version 2: indexes of this version that the image had before; it is not defined which one a device
            takes.
    """

    indexes: tuple[str, ...]
    image: str = ""
    others: tuple[str, ...] = ()


def push_referring(
    client: RegistryClient, reference: ImageReference, layout: OciLayout, version: IndexVersion
) -> Pushed:
    """Push the layout's indexes of an image that the registry has; the image stays as it is. Not for version 2.

    Raises:
        NotFoundError: The layout has none of this image.
        EdgeError: As the client's methods.
    """
    subjects = _manifests_of(client, reference)
    found = [(one, subject) for subject in subjects for one in layout.referrers(reference, subject, version.value)]
    if not found:
        raise NotFoundError(
            f"{layout.where} has no {version.name.lower()} index of {reference} as the registry has it",
            hint="Build it from the registry's image, or push the image it was built from.",
        )
    others = []
    for entry, subject in found:
        before = client.referrers(reference.at(subject), subject, version.value)
        others += [one.digest for one in before if one.digest != entry.digest]
        data = _push_index(client, reference, layout, entry.digest)
        listed = Descriptor(OCI_MANIFEST, entry.digest, len(data), artifact_type=version.value)
        if not client.push_manifest(reference.at(entry.digest), data, OCI_MANIFEST):
            client.add_referrer(reference, subject, listed)
    return Pushed(tuple(entry.digest for entry, _ in found), others=tuple(others))


def _manifests_of(client: RegistryClient, reference: ImageReference) -> tuple[str, ...]:
    root = client.manifest(reference)
    if isinstance(root, Manifest):
        return (root.digest,)
    return tuple(dict.fromkeys(entry.digest for entry, _ in root.manifests if not entry.artifact_type))


def push_image(client: RegistryClient, reference: ImageReference, layout: OciLayout, name: str) -> Pushed:
    """Push the layout's image `name`, annotated manifests and version 2 indexes, to the reference's tag.

    Raises:
        NotFoundError: The layout has no such image.
        InvalidInputError: It has no version 2 index, or the registry has not its layers.
        EdgeError: As the client's methods.
    """
    root = layout.manifest(layout.reference(name))
    entries = [entry for entry, _ in root.manifests] if isinstance(root, Index) else []
    indexes = [entry for entry in entries if entry.artifact_type == IndexVersion.V2]
    if not isinstance(root, Index) or not indexes:
        raise InvalidInputError(f"{layout.where} has no image {name} with a version 2 index".replace("  ", " "))
    for entry in entries:
        if entry in indexes:
            data = _push_index(client, reference, layout, entry.digest)
            client.push_manifest(reference.at(entry.digest), data, OCI_MANIFEST)
        elif layout.has(entry.digest):
            _push_manifest(client, reference, layout, entry)
    client.push_manifest(reference, root.data, OCI_INDEX)
    return Pushed(tuple(entry.digest for entry in indexes), digest_of(root.data))


def _push_manifest(client: RegistryClient, reference: ImageReference, layout: OciLayout, entry: Descriptor) -> None:
    manifest = layout.manifest(layout.reference().at(entry.digest))
    if not isinstance(manifest, Manifest):
        raise InvalidInputError(f"{layout.where}: {entry.digest} is an index in an index")
    for blob in (manifest.config, *manifest.layers):
        if not client.has_blob(reference, blob.digest):
            raise InvalidInputError(
                f"{reference.name} has no blob {blob.digest}, which the image needs",
                hint="Push the image itself there first: indexes are pushed beside it, not its layers.",
            )
    client.push_manifest(reference.at(entry.digest), manifest.data, manifest.media_type)


def _push_index(client: RegistryClient, reference: ImageReference, layout: OciLayout, digest: str) -> bytes:
    """Upload all that an index names; return the index."""
    data = layout.manifest(layout.reference().at(digest)).data
    index = read_index(data)
    artifacts = [entry.blob for entry in index.ztocs] + [entry.blob for entry in index.prefetches]
    for found in artifacts + [entry.blob for entry in index.recipes]:
        blob = Descriptor("", found.digest, found.size)
        client.push_blob(reference, layout.blob(reference, blob, MAX_ZTOC_BYTES))
    client.push_blob(reference, EMPTY_CONFIG)
    return data
