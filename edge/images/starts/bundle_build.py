"""Build a start bundle from an image and a start profile, reading each layer once, into an OCI layout."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from edge.errors import InvalidInputError
from edge.images.indexing.build import Progress, in_pieces
from edge.images.indexing.platforms import PlatformImage, platform_images
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import OCI_MANIFEST, Descriptor, digest_of
from edge.images.oci.layout import OciLayout
from edge.images.oci.layout_writer import LayoutWriter
from edge.images.oci.references import ImageReference
from edge.images.soci.builder import LayerIndexer
from edge.images.soci.checkpoints import WINDOW_BYTES, read_gzip_checkpoints, span_table, write_gzip_checkpoints
from edge.images.soci.compact import COMPACT_SPAN_SIZE, pack_ztoc
from edge.images.soci.manifests import COMPACT_ZTOC_MEDIA_TYPE, EMPTY_CONFIG, LAYER_DIGEST
from edge.images.soci.values import Compression, Ztoc
from edge.images.soci.ztoc import write_ztoc
from edge.images.starts.artifact import write_artifact
from edge.images.starts.bundle import (
    ARTIFACT_TYPE,
    BUNDLE_MEDIA_TYPE,
    BundleEntry,
    BundleHead,
    BundleLayer,
    annotations_of,
    block_digests,
    encode_head,
)
from edge.images.starts.places import TarRange, place
from edge.images.starts.zstd import compress
from edge.images.tree import LayerTree, write_tree
from edge.images.unpack import check_kind
from edge.model.start_profile import StartProfile

_COMPRESSIONS: Final = {0: Compression.UNCOMPRESSED, 2: Compression.GZIP}
_NEAR: Final = 4 << 10
"""A gap in a file that costs less than a request for what is in it."""
_PIECE: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """What was built.

    Attributes:
        entry: As the list of referrers gets it.
        start_bytes: What the start reads, unpacked.
        image_bytes: The layers' bytes in the registry.
    """

    image: PlatformImage
    entry: BundleEntry
    start_bytes: int
    image_bytes: int

    @property
    def share(self) -> float:
        """Of the image's bytes, what a start with the bundle fetches."""
        return self.entry.blob.size / max(1, self.image_bytes)


def build_bundle(
    reader: ContentReader,
    reference: ImageReference,
    writer: LayoutWriter,
    profile: StartProfile,
    progress: Progress = lambda _, __: None,
) -> BuiltBundle:
    """Build the bundle of the profile's platform.

    A profile of another version of the image will do: what the image does not have is left out.

    Raises:
        InvalidInputError: A layer is damaged or cannot be served lazily, or the image has none of the profile's files.
        NotFoundError: There is no such image or platform.
        StoreError: The layout cannot be written.
        EdgeError: As the reader's methods.
    """
    [image] = platform_images(reader, reference, (profile.platform,))[:1]
    with tempfile.TemporaryDirectory(prefix="edge-bundle-", dir=writer.folder) as name:
        folder = Path(name)
        total, done = sum(layer.size for layer, _ in image.layers()), 0
        read: list[_ReadLayer] = []
        for number, (layer, diff_id) in enumerate(image.layers()):
            before = done
            read.append(
                _read_layer(
                    reader, reference, layer, diff_id, folder / str(number),
                    lambda count, before=before: progress(before + count, total),  # type: ignore[misc]
                )
            )  # fmt: skip
            done += layer.size
        ranges = place([one.tree for one in read], profile.ranges, _NEAR)
        if not ranges:
            raise InvalidInputError(
                f"the profile names no file that {reference} has", hint="Is it a profile of this image?"
            )
        payload = b"".join(_bytes(read, ranges))
        blob, head_size = _pack(image, read, ranges, payload, writer)
    entry = BundleEntry(
        "", replace(blob, media_type=BUNDLE_MEDIA_TYPE), head_size[0], head_size[1],
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    ztocs = [(one.ztoc_blob, one.layer.digest) for one in read]
    subject = Descriptor(image.manifest.media_type, image.manifest.digest, len(image.manifest.data))
    writer.add(EMPTY_CONFIG)
    notes = annotations_of(entry, len(payload))
    blobs = [(entry.blob, {}), *((ztoc, {LAYER_DIGEST: digest}) for ztoc, digest in ztocs)]
    added = writer.add(write_artifact(ARTIFACT_TYPE, blobs, subject, notes), OCI_MANIFEST)
    listed = Descriptor(OCI_MANIFEST, added.digest, added.size, notes, ARTIFACT_TYPE)
    layout = OciLayout.at(writer.folder)
    former = layout.referrers(layout.reference(), image.manifest.digest, ARTIFACT_TYPE)
    writer.list_manifest(listed, instead_of=[one.digest for one in former])
    return BuiltBundle(image, replace(entry, digest=added.digest), len(payload), total)


@dataclass(frozen=True, slots=True)
class _ReadLayer:
    layer: Descriptor
    ztoc: Ztoc
    ztoc_blob: Descriptor
    packed: bytes
    head: bytes
    tree: LayerTree
    tar: Path


def _read_layer(  # noqa: PLR0913, PLR0917 - a layer, where from and where to
    reader: ContentReader,
    reference: ImageReference,
    layer: Descriptor,
    diff_id: str,
    folder: Path,
    progress: Callable[[int], None],
) -> _ReadLayer:
    folder.mkdir()
    compression = _COMPRESSIONS[check_kind(layer.media_type)]
    head = b""
    with (folder / "tar").open("wb") as tar:

        def keep(_offset: int, view: memoryview) -> None:
            tar.write(view)

        with LayerIndexer(
            compression, span_size=COMPACT_SPAN_SIZE, thin=compression is Compression.GZIP, on_output=keep
        ) as indexer:
            done = 0
            for piece in in_pieces(reader.chunks(reference, layer, 0, layer.size)):
                head = head or piece[: 64 << 10]
                indexer.feed(piece)
                done += len(piece)
                progress(done)
            found = indexer.finish()
    for what, digest, wanted in (("layer", found.layer_digest, layer.digest), ("tar", found.diff_id, diff_id)):
        if digest != wanted:
            raise InvalidInputError(
                f"layer {layer.digest} is damaged: the {what} has digest {digest}, not {wanted}",
                hint="Push or copy the image again.",
            )
    write_tree(folder / "tree", found.ztoc.files)
    packed = pack_ztoc(write_ztoc(found.ztoc))
    first = span_table(found.ztoc).spans[0].compressed_start
    blob = Descriptor(COMPACT_ZTOC_MEDIA_TYPE, digest_of(packed), len(packed))
    return _ReadLayer(layer, found.ztoc, blob, packed, head[:first], LayerTree(folder / "tree"), folder / "tar")


def _bytes(read: Sequence[_ReadLayer], ranges: Sequence[TarRange]) -> Iterator[bytes]:
    files: list[IO[bytes]] = [one.tar.open("rb") for one in read]
    try:
        for one in ranges:
            files[one.layer].seek(one.start)
            yield files[one.layer].read(one.end - one.start)
    finally:
        for file in files:
            file.close()


def _pack(
    image: PlatformImage, read: Sequence[_ReadLayer], ranges: tuple[TarRange, ...], payload: bytes, writer: LayoutWriter
) -> tuple[Descriptor, tuple[int, str]]:
    layers = tuple(BundleLayer(one.layer.digest, one.layer.size, one.head, (0, 0), one.ztoc_blob) for one in read)
    digests = block_digests(payload)
    head = BundleHead(image.manifest.digest, image.name, len(payload), layers, ranges, digests)
    packed = compress(encode_head(head, [write_ztoc(without_windows(one.ztoc)) for one in read]))
    for one in read:
        writer.add(one.packed)
    blob = writer.add(packed + compress(_pieces(payload)) + b"\0")
    return blob, (len(packed), digest_of(packed))


def _pieces(data: bytes) -> Iterator[bytes]:
    yield from (data[at : at + _PIECE] for at in range(0, len(data), _PIECE))


def without_windows(ztoc: Ztoc) -> Ztoc:
    """Return a zTOC that says where spans are and what is in them, and not how to inflate them."""
    if ztoc.compression is not Compression.GZIP:
        return ztoc
    points = [point._replace(window=bytes(WINDOW_BYTES)) for point in read_gzip_checkpoints(ztoc.checkpoints)]
    return replace(ztoc, checkpoints=write_gzip_checkpoints(points, COMPACT_SPAN_SIZE))
