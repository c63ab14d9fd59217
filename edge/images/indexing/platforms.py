"""The images behind a reference, one for each platform."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge.errors import InvalidInputError, NotFoundError
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import MANIFESTS, Configuration, Descriptor, Index, Manifest
from edge.images.oci.references import ImageReference

_MAXIMUM_PLATFORMS: Final = 64


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One platform's image.

    Attributes:
        platform: As OCI's documents have it (`os`, `architecture`, `variant`, …).
    """

    manifest: Manifest
    configuration: Configuration
    platform: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The platform as `os/architecture[/variant]`."""
        return platform_name(self.platform)

    def layers(self) -> tuple[tuple[Descriptor, str], ...]:
        """Return the layers, each with its DiffID.

        Raises:
            InvalidInputError: Manifest and configuration name different numbers of layers.
        """
        layers, diff_ids = self.manifest.layers, self.configuration.diff_ids
        if len(layers) != len(diff_ids):
            raise InvalidInputError(
                f"image {self.manifest.digest} has {len(layers)} layers and names {len(diff_ids)}",
                hint="Build the image again.",
            )
        return tuple(zip(layers, diff_ids, strict=True))


def platform_name(platform: Mapping[str, Any]) -> str:
    """Return `os/architecture[/variant]`."""
    parts = (platform.get("os") or "linux", platform.get("architecture") or "unknown", platform.get("variant"))
    return "/".join(str(part) for part in parts if part)


def is_image(entry: Descriptor) -> bool:
    """Say whether an entry of an image index is an image, not something that belongs to one."""
    return entry.media_type in MANIFESTS and not entry.artifact_type


def platform_images(
    reader: ContentReader, reference: ImageReference, wanted: Sequence[str] = ()
) -> tuple[PlatformImage, ...]:
    """Return the images of the wanted platforms (`linux/arm64`, `linux/arm/v7`, `arm64`), of all if none are named.

    Raises:
        NotFoundError: There is no image for one of the platforms.
        InvalidInputError: A document is malformed.
        EdgeError: As the reader's methods.
    """
    root = reader.manifest(reference)
    found = _of_index(reader, reference, root) if isinstance(root, Index) else (_of_manifest(reader, reference, root),)
    names = [one if "/" in one else f"linux/{one}" for one in wanted]
    for name in names:
        if not any(_fits(one, name) for one in found):
            known = ", ".join(one.name for one in found) or "none"
            raise NotFoundError(f"{reference} has no image for {name}", hint=f"It has: {known}.")
    return tuple(one for one in found if not names or any(_fits(one, name) for name in names))


def _fits(image: PlatformImage, name: str) -> bool:
    return f"{image.name}/".startswith(f"{name}/")


def _of_manifest(reader: ContentReader, reference: ImageReference, manifest: Manifest) -> PlatformImage:
    configuration = reader.configuration(reference.at(manifest.digest), manifest)
    document = json.loads(configuration.data)
    platform = {key: document[key] for key in ("architecture", "os", "variant") if document.get(key)}
    return PlatformImage(manifest, configuration, platform)


def _of_index(reader: ContentReader, reference: ImageReference, index: Index) -> tuple[PlatformImage, ...]:
    listed = [entry.get("platform") or {} for entry in json.loads(index.data)["manifests"]]
    entries = [
        (entry, platform)
        for (entry, _), platform in zip(index.manifests, listed, strict=True)
        # Attestations stand in image indexes as images for an unknown system.
        if is_image(entry) and isinstance(platform, dict) and platform.get("os") != "unknown"
    ]
    if len(entries) > _MAXIMUM_PLATFORMS:
        raise InvalidInputError(f"{reference} is for {len(entries)} platforms; {_MAXIMUM_PLATFORMS} are the most")
    found = []
    for entry, platform in entries:
        manifest = reader.manifest(reference.at(entry.digest))
        if isinstance(manifest, Index):
            raise InvalidInputError(f"{reference} is an index of indexes")
        image = _of_manifest(reader, reference, manifest)
        found.append(PlatformImage(manifest, image.configuration, platform or image.platform))
    return tuple(found)
