"""SOCI index manifests, version 1 and 2, and how an image is bound to one.

A version 1 index refers to its image manifest by `subject` and is found through the registry's referrers. A version 2
index is named by an annotation of the image manifest, and stands beside it in the OCI image index. JSON is written as
`soci` writes it (awslabs/soci-snapshotter `soci/soci_index.go`, `soci_convert.go`), so equal values have equal digests.
Manifests: https://github.com/opencontainers/image-spec/blob/v1.1.0/manifest.md
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from edge.errors import InvalidInputError
from edge.images.soci.values import DEFAULT_BUILD_TOOL, FileMetadata

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
ZTOC_MEDIA_TYPE: Final = "application/octet-stream"
COMPACT_ZTOC_MEDIA_TYPE: Final = "application/vnd.edge.ztoc.v1+gzip"
RECIPE_MEDIA_TYPE: Final = "application/vnd.edge.recipe.v1"
PREFETCH_MEDIA_TYPE: Final = "application/vnd.amazon.soci.prefetch.v1+json"

LAYER_MEDIA_TYPE: Final = "com.amazon.soci.image-layer-mediaType"
LAYER_DIGEST: Final = "com.amazon.soci.image-layer-digest"
SPAN_SIZE: Final = "com.amazon.soci.span-size"
DISABLE_XATTRS: Final = "com.amazon.soci.disable-xattrs"
BUILD_TOOL: Final = "com.amazon.soci.build-tool-identifier"
RECIPE_HEAD: Final = "vnd.edge.recipe-head"
IMAGE_MANIFEST_DIGEST: Final = "com.amazon.soci.image-manifest-digest"
INDEX_DIGEST: Final = "com.amazon.soci.index-digest"

EMPTY_CONFIG: Final = b"{}"
"""The config blob of every SOCI index; registries want it to exist."""

MAX_MANIFEST_BYTES: Final = 4 << 20
"""What registries must accept (OCI distribution specification 1.1)."""

_MAX_LAYERS: Final = 4096
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_ESCAPES: Final = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})
_PLATFORM_FIELDS: Final = ("architecture", "os", "os.version", "os.features", "variant")
_DESCRIPTOR_FIELDS: Final = ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
_MANIFEST_FIELDS: Final = ("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject")


class IndexVersion(StrEnum):
    """A SOCI index's version: the media type of its config.

    `COMPACT` is this project's own: as version 1, but each zTOC is compressed, and its windows are thin
    (`edge.images.soci.compact`). SOCI's tools pass it by.
    """

    V1 = "application/vnd.amazon.soci.index.v1+json"
    V2 = "application/vnd.amazon.soci.index.v2+json"
    COMPACT = "application/vnd.edge.compact-index.v1+json"


class Descriptor(NamedTuple):
    """What is stored in a registry: type, digest, size in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ZtocEntry:
    """A zTOC in an index.

    Attributes:
        blob: The zTOC itself.
        layer_digest: The layer (compressed, as in the image manifest) that it describes.
        span_size: Uncompressed bytes; `None` in indexes of old tools.
        disable_xattrs: The layer has neither extended attributes nor opaque directories.
    """

    blob: Descriptor
    layer_digest: str
    layer_media_type: str = ""
    span_size: int | None = None
    disable_xattrs: bool = False


@dataclass(frozen=True, slots=True)
class PrefetchEntry:
    """A prefetch artifact in an index."""

    blob: Descriptor
    layer_digest: str


@dataclass(frozen=True, slots=True)
class RecipeEntry:
    """A layer's recipe in an index (`edge.images.delta.recipe`); SOCI has none.

    Attributes:
        head: What of the blob is fetched first: how many bytes, and their digest.
    """

    blob: Descriptor
    layer_digest: str
    head_size: int
    head_digest: str


@dataclass(frozen=True, slots=True)
class SociIndex:
    """A SOCI index: zTOCs in the order of the image's layers, then prefetch artifacts.

    Attributes:
        subject: The platform's image manifest; version 1 has it, version 2 does not.
    """

    version: IndexVersion
    ztocs: tuple[ZtocEntry, ...]
    prefetches: tuple[PrefetchEntry, ...] = ()
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: {BUILD_TOOL: DEFAULT_BUILD_TOOL})
    recipes: tuple[RecipeEntry, ...] = ()

    def ztoc_of(self, layer_digest: str) -> ZtocEntry | None:
        """Return the zTOC of a layer; small layers have none."""
        return next((entry for entry in self.ztocs if entry.layer_digest == layer_digest), None)

    def recipe_of(self, layer_digest: str) -> RecipeEntry | None:
        """Return the recipe of a layer, if the index has one."""
        return next((entry for entry in self.recipes if entry.layer_digest == layer_digest), None)

    def bound_to(self, subject: Descriptor | None) -> Self:
        """Return the same index for another image manifest."""
        return replace(self, subject=subject)


def digest_of(data: bytes) -> str:
    """Name bytes by their digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def can_disable_xattrs(files: Sequence[FileMetadata]) -> bool:
    """Say whether a layer has neither extended attributes nor opaque directories."""
    return not any(entry.xattrs or entry.name.endswith(".wh..wh..opq") for entry in files)


def write_index(index: SociIndex) -> bytes:
    """Encode an index manifest as `soci` does."""
    config = Descriptor(index.version.value, digest_of(EMPTY_CONFIG), len(EMPTY_CONFIG))
    layers = [_ztoc_json(entry) for entry in index.ztocs]
    layers += [_descriptor_json(entry.blob, {LAYER_DIGEST: entry.layer_digest}) for entry in index.prefetches]
    layers += [_recipe_json(entry) for entry in index.recipes]
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _descriptor_json(config)}
    document["layers"] = layers
    if index.subject is not None:
        document["subject"] = _descriptor_json(index.subject)
    if index.annotations:
        document["annotations"] = dict(sorted(index.annotations.items()))
    return _encode(document)


def _ztoc_json(entry: ZtocEntry) -> dict[str, Any]:
    annotations = {LAYER_DIGEST: entry.layer_digest, LAYER_MEDIA_TYPE: entry.layer_media_type}
    if entry.span_size is not None:
        annotations[SPAN_SIZE] = str(entry.span_size)
    if entry.disable_xattrs:
        annotations[DISABLE_XATTRS] = "true"
    return _descriptor_json(entry.blob, annotations)


def _recipe_json(entry: RecipeEntry) -> dict[str, Any]:
    head = f"{entry.head_size} {entry.head_digest}"
    return _descriptor_json(entry.blob, {LAYER_DIGEST: entry.layer_digest, RECIPE_HEAD: head})


def _descriptor_json(blob: Descriptor, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size}
    return found | ({"annotations": dict(sorted(annotations.items()))} if annotations else {})


def _encode(document: Mapping[str, Any]) -> bytes:
    # Go escapes these characters in strings; nowhere else in JSON can they stand.
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPES).encode()


def read_index(data: bytes) -> SociIndex:
    """Decode an index manifest.

    Raises:
        InvalidInputError: It is not a SOCI index of version 1 or 2.
    """
    document = parse_document(data, "the SOCI index")
    version = _version(_object(document.get("config"), "config").get("mediaType"))
    ztocs, prefetches, recipes = list[ZtocEntry](), list[PrefetchEntry](), list[RecipeEntry]()
    for number, layer in enumerate(_list(document.get("layers"), "layers")):
        blob, notes = _descriptor(layer, f"layers[{number}]"), _annotations(layer, f"layers[{number}]")
        digest = _digest(notes.get(LAYER_DIGEST), f"layers[{number}].annotations[{LAYER_DIGEST}]")
        if blob.media_type == PREFETCH_MEDIA_TYPE:
            prefetches.append(PrefetchEntry(blob, digest))
        elif blob.media_type == RECIPE_MEDIA_TYPE:
            recipes.append(_recipe(blob, digest, notes.get(RECIPE_HEAD, ""), f"layers[{number}]"))
        elif blob.media_type in (ZTOC_MEDIA_TYPE, COMPACT_ZTOC_MEDIA_TYPE):
            size = notes.get(SPAN_SIZE, "")
            span_size = int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None  # noqa: PLR2004
            off = notes.get(DISABLE_XATTRS) == "true"
            ztocs.append(ZtocEntry(blob, digest, notes.get(LAYER_MEDIA_TYPE, ""), span_size, disable_xattrs=off))
    subject = _descriptor(document["subject"], "subject") if document.get("subject") is not None else None
    annotations = _annotations(document, "the SOCI index")
    return SociIndex(version, tuple(ztocs), tuple(prefetches), subject, annotations, tuple(recipes))


def _recipe(blob: Descriptor, layer_digest: str, head: str, where: str) -> RecipeEntry:
    size, _, digest = head.partition(" ")
    if not size.isascii() or not size.isdigit() or len(size) > 9 or int(size) > blob.size:  # noqa: PLR2004 - 128 MiB
        raise InvalidInputError(f"{where} is a recipe whose head is {head[:100]!r}", hint="Build the index again.")
    return RecipeEntry(blob, layer_digest, int(size), _digest(digest, f"{where}.annotations[{RECIPE_HEAD}]"))


def _version(media_type: object) -> IndexVersion:
    found = next((version for version in IndexVersion if version.value == media_type), None)
    if found is None:
        raise InvalidInputError(f"the SOCI index has the unknown version {str(media_type)[:100]!r}")
    return found


def referrers(data: bytes) -> tuple[Descriptor, ...]:
    """Return the indexes that a registry's referrers answer (or the fallback tag's image index) lists, version 1 only.

    Registries may ignore the filter that was asked for, so it is applied here.

    Raises:
        InvalidInputError: It is not an image index.
    """
    document = parse_document(data, "the list of referrers")
    entries = [_object(entry, "manifests[]") for entry in _list(document.get("manifests"), "manifests")]
    wanted = [entry for entry in entries if entry.get("artifactType") == IndexVersion.V1]
    return tuple(_descriptor(entry, "manifests[]") for entry in wanted)


def index_digest_of(manifest: bytes) -> str | None:
    """Return the digest of the version 2 index that an image manifest names, if it names one.

    Raises:
        InvalidInputError: It is not a manifest, or what it names is not a digest.
    """
    found = _annotations(parse_document(manifest, "the image manifest"), "the image manifest").get(INDEX_DIGEST)
    return None if found is None else _digest(found, f"annotations[{INDEX_DIGEST}]")


def annotate_manifest(manifest: bytes, index_digest: str | None) -> bytes:
    """Return an image manifest that names its version 2 index, in OCI's media types as `soci convert` rewrites it.

    `None` rewrites the media types only. Layers and config are the same blobs, but the image's digest changes.

    Raises:
        InvalidInputError: It is not an image manifest.
    """
    document = parse_document(manifest, "the image manifest")
    config = _object(document.get("config"), "config") | {"mediaType": OCI_CONFIG}
    annotations = _annotations(document, "the image manifest")
    if index_digest is not None:
        annotations[INDEX_DIGEST] = _digest(index_digest, "the index digest")
    layers = [_canonical(layer, f"layers[{i}]") for i, layer in enumerate(_list(document.get("layers"), "layers"))]
    document |= {"config": _canonical(config, "config"), "layers": layers}
    if document.get("subject") is not None:
        document["subject"] = _canonical(document["subject"], "subject")
    document |= {"mediaType": OCI_MANIFEST, "annotations": dict(sorted(annotations.items()))}
    return _encode(_ordered(document, _MANIFEST_FIELDS))


def bind_image_index(
    image_index: bytes | None,
    images: Sequence[tuple[str, bytes, Mapping[str, Any]]],
    indexes: Mapping[str, bytes],
) -> bytes:
    """Return an OCI image index with annotated manifests and their version 2 SOCI indexes.

    Args:
        image_index: The image index before; `None` for an image that was a single manifest.
        images: (digest of the manifest before, annotated manifest, platform as JSON) of each image.
        indexes: SOCI index by the digest of the manifest before.

    Raises:
        InvalidInputError: The image index is malformed.
    """
    document = (
        {"schemaVersion": 2, "manifests": []} if image_index is None else parse_document(image_index, "the index")
    )
    manifests = [dict(_object(entry, "manifests[]")) for entry in _list(document.get("manifests"), "manifests")]
    for before, manifest, platform in images:
        place = next((entry for entry in manifests if entry.get("digest") == before), None)
        if place is None:
            place = {"platform": _ordered(platform, _PLATFORM_FIELDS)}
            manifests.append(place)
        annotations = dict(sorted(_annotations(json.loads(manifest), "the manifest").items()))
        place |= {"mediaType": OCI_MANIFEST, "digest": digest_of(manifest), "size": len(manifest)}
        place.pop("annotations", None)
        place |= {"annotations": annotations} if annotations else {}
        if before in indexes:
            _add_soci_index(manifests, indexes[before], digest_of(manifest), platform)
    document |= {"mediaType": OCI_INDEX, "manifests": [_canonical(entry, "manifests[]") for entry in manifests]}
    return _encode(_ordered(document, _MANIFEST_FIELDS))


def _add_soci_index(
    manifests: list[dict[str, Any]], index: bytes, manifest_digest: str, platform: Mapping[str, Any]
) -> None:
    wanted = _ordered(platform, _PLATFORM_FIELDS)
    entry = _descriptor_json(Descriptor(OCI_MANIFEST, digest_of(index), len(index)))
    entry |= {"annotations": {IMAGE_MANIFEST_DIGEST: manifest_digest}}
    entry |= {"platform": wanted, "artifactType": IndexVersion.V2.value}
    for number, other in enumerate(manifests):
        if other.get("artifactType") == IndexVersion.V2 and other.get("platform") == wanted:
            manifests[number] = entry
            return
    manifests.append(entry)


def _canonical(found: object, where: str) -> dict[str, Any]:
    entry = dict(_object(found, where))
    if isinstance(entry.get("annotations"), dict):
        entry["annotations"] = dict(sorted(entry["annotations"].items()))
    if isinstance(entry.get("platform"), dict):
        entry["platform"] = _ordered(entry["platform"], _PLATFORM_FIELDS)
    return _ordered(entry, _DESCRIPTOR_FIELDS)


def _ordered(found: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    rest = sorted(key for key in found if key not in first)
    return {key: found[key] for key in [*first, *rest] if key in found and found[key] not in ({}, None)}


def parse_document(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object of bounded size.

    Raises:
        InvalidInputError: It is too large, or not a JSON object.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidInputError(f"{what} has {len(data)} bytes, more than {MAX_MANIFEST_BYTES}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{what} is not JSON: {error}") from error
    return _object(document, what)


def _object(found: object, where: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise InvalidInputError(f"{where} is not an object", problems=((where, "must be an object"),))
    return found


def _list(found: object, where: str) -> list[Any]:
    if not isinstance(found, list) or len(found) > _MAX_LAYERS:
        raise InvalidInputError(f"{where} is not a list", problems=((where, f"must be a list of up to {_MAX_LAYERS}"),))
    return found


def _digest(found: object, where: str) -> str:
    if not isinstance(found, str) or not _DIGEST.fullmatch(found):
        raise InvalidInputError(f"{where} is not a digest", problems=((where, "must be sha256:<64 hex digits>"),))
    return found


def _descriptor(found: object, where: str) -> Descriptor:
    entry = _object(found, where)
    kind, size = entry.get("mediaType"), entry.get("size")
    if not isinstance(kind, str) or isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 1 << 63:
        raise InvalidInputError(f"{where} is not a descriptor", problems=((where, "needs mediaType, digest and size"),))
    return Descriptor(kind, _digest(entry.get("digest"), f"{where}.digest"), size)


def _annotations(found: object, where: str) -> dict[str, str]:
    notes = _object(found, where).get("annotations")
    return {key: value for key, value in _object(notes or {}, where).items() if isinstance(value, str)}
