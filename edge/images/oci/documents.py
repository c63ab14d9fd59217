"""Manifests, indexes and configurations; bounded before they are parsed, and only what is used of them."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edge.errors import ImagePullError, InvalidInputError
from edge.images.oci.references import DIGEST

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS: Final = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES: Final = (OCI_INDEX, DOCKER_LIST)
MAXIMUM_MANIFEST: Final = 4 * 1024 * 1024
"""What the distribution specification asks registries to take at least, and most take at most."""
MAXIMUM_CONFIGURATION: Final = 8 * 1024 * 1024
_MAXIMUM_LAYERS: Final = 500
_MAXIMUM_NAMED: Final = 20
_MAXIMUM_SIZE: Final = 1 << 50
_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "arm64": ("v8", ""),
    "amd64": ("v1", ""),
    "arm": ("v7", "v6", "v5", ""),
}
"""What every device of an architecture runs, the best first; a newer variant (amd64/v3) may be too new for it."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to content: type, digest, size."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image is for, in OCI's words."""

    architecture: str
    os: str = "linux"
    variant: str = ""

    def __str__(self) -> str:
        """`os/architecture`, with `/variant` if there is one."""
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image."""

    data: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of the document."""
        return digest_of(self.data)


@dataclass(frozen=True, slots=True)
class Index:
    """Images of several platforms, or referrers."""

    data: bytes
    manifests: tuple[tuple[Descriptor, Platform], ...]

    def choose(self, architecture: str) -> Descriptor:
        """Return the image for this architecture, of the newest variant that all its devices run.

        Raises:
            ImagePullError: There is none.
        """
        variants = _VARIANTS.get(architecture, ("",))
        fitting = [
            (variants.index(platform.variant), descriptor)
            for descriptor, platform in self.manifests
            if platform.os == "linux" and platform.architecture == architecture and platform.variant in variants
        ]
        if not fitting:
            known = ", ".join(sorted({str(one) for _, one in self.manifests})[:_MAXIMUM_NAMED]) or "nothing"
            raise ImagePullError(
                f"the image is for {known}, this device is linux/{architecture}",
                reason="CannotPullContainerError",
                hint="Push the image for this device's architecture too.",
            )
        return min(fitting, key=lambda item: item[0])[1]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What an image says of itself, as far as it is needed here."""

    data: bytes
    architecture: str
    created: str
    diff_ids: tuple[str, ...]

    @property
    def image_id(self) -> str:
        """The hexadecimal digest of the document, which is the image's id."""
        return hashlib.sha256(self.data).hexdigest()


def digest_of(data: bytes) -> str:
    """Return `sha256:…`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def parse_manifest(data: bytes, media_type: str = "") -> Manifest | Index:
    """Read a manifest or an index.

    Raises:
        InvalidInputError: It is neither, or larger than allowed.
    """
    document = _document(data, MAXIMUM_MANIFEST, "the manifest")
    kind = str(document.get("mediaType") or media_type.partition(";")[0].strip())
    if "manifests" in document and ("layers" in document or "config" in document):
        # Two readers could each see another image in it (CVE-2021-41190).
        raise InvalidInputError("the document is a manifest and an index at once")
    annotations = _texts(document.get("annotations"))
    if kind in INDEXES or "manifests" in document:
        listed = tuple((_descriptor(item), _platform(item.get("platform"))) for item in _items(document, "manifests"))
        return Index(data, listed)
    if kind not in MANIFESTS:
        raise InvalidInputError(f"a manifest of type {kind or 'none'} cannot be used", hint="Push it as an OCI image.")
    layers = tuple(_descriptor(item) for item in _items(document, "layers"))
    if len(layers) > _MAXIMUM_LAYERS:
        raise InvalidInputError(f"the image has {len(layers)} layers; {_MAXIMUM_LAYERS} are the most")
    return Manifest(data, kind, _descriptor(document.get("config")), layers, annotations)


def parse_configuration(data: bytes) -> Configuration:
    """Read an image's configuration.

    Raises:
        InvalidInputError: It is none, or larger than allowed.
    """
    document = _document(data, MAXIMUM_CONFIGURATION, "the image's configuration")
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) > _MAXIMUM_LAYERS:
        raise InvalidInputError("the image's configuration has no list of layers (rootfs.diff_ids), or too long a one")
    if not all(isinstance(one, str) and DIGEST.fullmatch(one) for one in diff_ids):
        raise InvalidInputError("the image's configuration names layers by other than sha256 digests (rootfs.diff_ids)")
    created = document.get("created")
    return Configuration(
        data,
        str(document.get("architecture", "")),
        created if isinstance(created, str) else "1970-01-01T00:00:00Z",
        tuple(diff_ids),
    )


def host_architecture() -> str:
    """This machine's, in OCI's words."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _document(data: bytes, most: int, what: str) -> dict[str, Any]:
    if len(data) > most:
        raise InvalidInputError(f"{what} has {len(data)} bytes; {most} are the most")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{what} is no JSON object")
    return document


def _items(document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidInputError(f"the manifest's {key} is no list of descriptors")
    return items


def _descriptor(item: Any) -> Descriptor:
    digest, size = (item.get("digest"), item.get("size")) if isinstance(item, dict) else (None, None)
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise InvalidInputError("a descriptor has no sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAXIMUM_SIZE:
        raise InvalidInputError(f"the descriptor of {digest} has no size that can be")
    return Descriptor(
        str(item.get("mediaType", "")),
        digest,
        size,
        _texts(item.get("annotations")),
        str(item.get("artifactType", "")),
    )


def _platform(item: Any) -> Platform:
    found = item if isinstance(item, dict) else {}
    return Platform(str(found.get("architecture", "")), str(found.get("os", "linux")), str(found.get("variant", "")))


def _texts(found: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
