"""The SOCI indexes an image has: found as a device finds them, and described."""

from dataclasses import dataclass
from typing import Final

from edge.errors import EdgeError, InvalidInputError, TransientError
from edge.images.indexing.platforms import PlatformImage, platform_images
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import Descriptor
from edge.images.oci.references import ImageReference
from edge.images.soci.checkpoints import span_table
from edge.images.soci.compact import unpack_ztoc
from edge.images.soci.manifests import (
    BUILD_TOOL,
    COMPACT_ZTOC_MEDIA_TYPE,
    IndexVersion,
    SociIndex,
    ZtocEntry,
    index_digest_of,
    read_index,
)
from edge.images.soci.values import Ztoc
from edge.images.soci.ztoc import MAX_ZTOC_BYTES, read_ztoc

_REFERRING: Final = (IndexVersion.COMPACT, IndexVersion.V1)


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """An index of one platform's image.

    Attributes:
        index: None when it cannot be used; `problem` says why.
    """

    image: PlatformImage
    version: IndexVersion
    digest: str
    index: SociIndex | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """A layer in an index.

    Attributes:
        ztoc: None when the index leaves the layer out.
        spans: How many, as `files`.
        largest_span: Compressed bytes: the most that one read may have to wait for.
    """

    layer: Descriptor
    ztoc: ZtocEntry | None
    spans: int = 0
    files: int = 0
    uncompressed_size: int = 0
    largest_span: int = 0


def find_indexes(
    reader: ContentReader, reference: ImageReference, platforms: tuple[str, ...] = ()
) -> tuple[tuple[PlatformImage, tuple[FoundIndex, ...]], ...]:
    """Return each platform's image with its indexes: the one its manifest names (version 2), those that refer to it.

    Raises:
        NotFoundError: There is no such image or platform.
        InvalidInputError: An image's documents are malformed.
        EdgeError: As the reader's methods.
    """
    images = platform_images(reader, reference, platforms)
    return tuple((image, _indexes_of(reader, reference, image)) for image in images)


def _indexes_of(reader: ContentReader, reference: ImageReference, image: PlatformImage) -> tuple[FoundIndex, ...]:
    pinned = reference.at(image.manifest.digest)
    found = []
    if (named := index_digest_of(image.manifest.data)) is not None:
        found.append(_read(reader, reference, image, IndexVersion.V2, named))
    for version in _REFERRING:
        referring = reader.referrers(pinned, image.manifest.digest, version.value)
        found += [_read(reader, reference, image, version, entry.digest) for entry in referring]
    return tuple(found)


def _read(
    reader: ContentReader, reference: ImageReference, image: PlatformImage, version: IndexVersion, digest: str
) -> FoundIndex:
    try:
        index = read_index(reader.manifest(reference.at(digest)).data)
    except TransientError:
        raise
    except EdgeError as error:
        return FoundIndex(image, version, digest, None, str(error))
    return FoundIndex(image, version, digest, index)


def build_tool(index: SociIndex) -> str:
    """Return what the index says it was built by."""
    return index.annotations.get(BUILD_TOOL, "")


def load_ztoc(reader: ContentReader, reference: ImageReference, entry: ZtocEntry) -> Ztoc:
    """Fetch and decode a zTOC.

    Raises:
        InvalidInputError: It is malformed.
        EdgeError: As `ContentReader.blob`.
    """
    data = reader.blob(reference, Descriptor("", entry.blob.digest, entry.blob.size), MAX_ZTOC_BYTES)
    return read_ztoc(unpack_ztoc(data) if entry.blob.media_type == COMPACT_ZTOC_MEDIA_TYPE else data)


def summarize(reader: ContentReader, reference: ImageReference, found: FoundIndex) -> tuple[LayerSummary, ...]:
    """Describe each layer of an index's image; fetches the zTOCs.

    Raises:
        InvalidInputError: The index cannot be used, or a zTOC is malformed.
        EdgeError: As `ContentReader.blob`.
    """
    if found.index is None:
        raise InvalidInputError(f"index {found.digest} cannot be used: {found.problem}", hint="Build it again.")
    summaries = []
    for layer in found.image.manifest.layers:
        entry = found.index.ztoc_of(layer.digest)
        if entry is None:
            summaries.append(LayerSummary(layer, None))
            continue
        ztoc = load_ztoc(reader, reference, entry)
        largest = max(span.compressed_end - span.compressed_start for span in span_table(ztoc).spans)
        counts = (len(ztoc.span_digests), len(ztoc.files), ztoc.uncompressed_size, largest)
        summaries.append(LayerSummary(layer, entry, *counts))
    return tuple(summaries)
