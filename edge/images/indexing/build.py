"""Build the SOCI indexes of an image, reading each layer once, into an OCI layout.

Versions 1 and 2 are what `soci create` and `soci convert` write for the same span size; the compact one is ours.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.errors import InvalidInputError, StoreError
from edge.images.delta.building import RecipeBuilder
from edge.images.delta.recipe import POINT_DISTANCE, BuiltRecipe, Point
from edge.images.indexing.platforms import PlatformImage, is_image, platform_images
from edge.images.kept_index import OWN_SPAN_SIZE, read_kept_index
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import OCI_INDEX, OCI_MANIFEST, Descriptor, Index, digest_of
from edge.images.oci.layout import OciLayout
from edge.images.oci.layout_writer import LayoutWriter
from edge.images.oci.references import ImageReference
from edge.images.soci import manifests
from edge.images.soci.builder import LayerIndex, LayerIndexer
from edge.images.soci.checkpoints import MAX_SPAN_BYTES, WINDOW_BYTES
from edge.images.soci.compact import COMPACT_SPAN_SIZE, pack_ztoc
from edge.images.soci.manifests import (
    COMPACT_ZTOC_MEDIA_TYPE,
    EMPTY_CONFIG,
    RECIPE_MEDIA_TYPE,
    ZTOC_MEDIA_TYPE,
    IndexVersion,
    RecipeEntry,
    SociIndex,
    ZtocEntry,
    annotate_manifest,
    bind_image_index,
    can_disable_xattrs,
    write_index,
)
from edge.images.soci.values import DEFAULT_MIN_LAYER_SIZE, DEFAULT_SPAN_SIZE, Compression, Ztoc
from edge.images.soci.ztoc import write_ztoc
from edge.images.unpack import check_kind

_COMPACT_MIN_LAYER_SIZE: Final = 1 << 20
"""Compressed bytes; a smaller layer is fetched whole in a few round trips."""

Progress = Callable[[int, int], None]
"""Bytes of layers that were read, of how many."""

_PIECE: Final = 512 * 1024
_COMPRESSIONS: Final = {0: Compression.UNCOMPRESSED, 2: Compression.GZIP}


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What is built.

    Attributes:
        span_size: Uncompressed bytes.
        min_layer_size: Compressed bytes; smaller layers get no zTOC, they are faster fetched whole.
        platforms: As for `platform_images`.
        recipes: Also make the layers' recipes for updates; the compact index alone holds them. Building takes longer.
        disable_xattrs: Mark layers without extended attributes and opaque directories, as `soci … --optimizations
            xattr` does.

    Raises:
        InvalidInputError: The span size is out of bounds, or SOCI's versions shall hold recipes.
    """

    version: IndexVersion = IndexVersion.V1
    span_size: int = DEFAULT_SPAN_SIZE
    min_layer_size: int = DEFAULT_MIN_LAYER_SIZE
    platforms: tuple[str, ...] = ()
    disable_xattrs: bool = False
    recipes: bool = False

    @classmethod
    def of(cls, version: IndexVersion) -> "IndexOptions":
        """Return what is built unless something else is asked for: SOCI's versions as `soci` builds them."""
        if version is IndexVersion.COMPACT:
            return cls(version, COMPACT_SPAN_SIZE, _COMPACT_MIN_LAYER_SIZE)
        return cls(version)

    def __post_init__(self) -> None:
        """Check what would be refused layer by layer."""
        if not WINDOW_BYTES <= self.span_size <= MAX_SPAN_BYTES:
            raise InvalidInputError(
                f"a span size is {WINDOW_BYTES} to {MAX_SPAN_BYTES} bytes, not {self.span_size}",
                hint="Each span costs 32 KiB in the index; 256 KiB to 4 MiB are usual.",
            )
        if self.recipes and self.version is not IndexVersion.COMPACT:
            raise InvalidInputError(
                "an index of SOCI's versions holds no recipes for updates",
                hint="Leave --for-updates out, or build the compact index.",
            )


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer and its zTOC, or why it has none; with a compact one its recipe."""

    layer: Descriptor
    ztoc: ZtocEntry | None
    spans: int = 0
    files: int = 0
    skipped: str = ""
    recipe: RecipeEntry | None = None


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """One platform's image.

    Attributes:
        manifest_digest: The image that has the index: for version 2 the annotated one.
        index_digest: Empty when none of its layers got a zTOC.
    """

    platform: str
    manifest_digest: str
    index_digest: str
    layers: tuple[BuiltLayer, ...]


def build_indexes(  # noqa: PLR0913, PLR0917 - from where, to where, how
    reader: ContentReader,
    reference: ImageReference,
    writer: LayoutWriter,
    options: IndexOptions,
    name: str = "",
    progress: Progress = lambda _, __: None,
    kept: Mapping[str, Path] | None = None,
) -> tuple[BuiltImage, ...]:
    """Index an image into a layout: version 2 as a new image index that is listed by `name`, the others as artifacts.

    Args:
        reader: Where the image is.
        reference: Which one.
        writer: Where to.
        options: What is built.
        name: Version 2: the new image index's.
        progress: Told of bytes that were read.
        kept: Compact indexes that are there already, by the layers' digests: no layer is read, and those without one
            are left out.

    Raises:
        InvalidInputError: A layer is damaged, or no layer can have a zTOC.
        NotFoundError: There is no such image or platform.
        StoreError: The layout cannot be written.
        EdgeError: As the reader's methods.
    """
    images = platform_images(reader, reference, options.platforms)
    layers = _Layers(reader, reference, writer, options, progress, kept)
    layers.plan(images)
    built = {image.manifest.digest: layers.build(image) for image in images}
    if not any(layer.ztoc for found in built.values() for layer in found):
        reasons = "; ".join(f"{one.layer.digest[:19]}: {one.skipped}" for found in built.values() for one in found)
        raise InvalidInputError(
            f"no layer of {reference} can have an index ({reasons or 'there are none'})",
            hint="Small images start as fast without one; --min-layer-size 0 indexes every layer.",
        )
    writer.add(EMPTY_CONFIG)
    if options.version is IndexVersion.V2:
        return _write_v2(reader, reference, writer, images, built, name)
    return tuple(_write_referring(writer, options.version, image, built[image.manifest.digest]) for image in images)


class _Layers:
    """Indexes layers, each once, however many images have it."""

    def __init__(  # noqa: PLR0913, PLR0917 - from where, to where, how
        self,
        reader: ContentReader,
        reference: ImageReference,
        writer: LayoutWriter,
        options: IndexOptions,
        progress: Progress,
        kept: Mapping[str, Path] | None,
    ) -> None:
        self._kept = kept
        self._reader, self._reference, self._writer = reader, reference, writer
        self._options, self._progress = options, progress
        self._compact = options.version is IndexVersion.COMPACT
        self._built: dict[str, BuiltLayer] = {}
        self._done = self._total = 0

    def plan(self, images: Iterable[PlatformImage]) -> None:
        """Sum up what will be read."""
        wanted = {layer.digest: layer.size for image in images for layer, _ in image.layers() if not self._why(layer)}
        self._total = sum(wanted.values())

    def build(self, image: PlatformImage) -> tuple[BuiltLayer, ...]:
        """Index an image's layers."""
        return tuple(self._layer(layer, diff_id) for layer, diff_id in image.layers())

    def _why(self, layer: Descriptor) -> str:
        if layer.size < self._options.min_layer_size:
            return f"{layer.size} bytes are less than {self._options.min_layer_size}"
        try:
            check_kind(layer.media_type)
        except InvalidInputError as error:
            return str(error)
        if self._kept is not None and layer.digest not in self._kept:
            return "no index of it was made and kept here"
        return ""

    def _layer(self, layer: Descriptor, diff_id: str) -> BuiltLayer:
        found = self._built.get(layer.digest)
        if found is None:
            why = self._why(layer)
            found = BuiltLayer(layer, None, skipped=why) if why else self._index(layer, diff_id)
            self._built[layer.digest] = found
        return found

    def _index(self, layer: Descriptor, diff_id: str) -> BuiltLayer:
        if self._kept is not None:
            return self._take(layer, self._kept[layer.digest])
        compression = _COMPRESSIONS[check_kind(layer.media_type)]
        try:
            found, recipe = self._read(layer, compression)
        except InvalidInputError as error:
            self._check_digest(layer)
            return BuiltLayer(layer, None, skipped=str(error))
        for what, digest, wanted in (("layer", found.layer_digest, layer.digest), ("tar", found.diff_id, diff_id)):
            if digest != wanted:
                raise _damaged(layer, f"the {what} has digest {digest}, not {wanted}")
        data = write_ztoc(found.ztoc)
        packed = pack_ztoc(data) if self._compact else data
        return self._add(layer, found.ztoc, packed, self._options.span_size, recipe)

    def _read(self, layer: Descriptor, compression: Compression) -> tuple[LayerIndex, BuiltRecipe | None]:
        """Read a layer once; a recipe is made where one is asked for."""
        builder = RecipeBuilder() if self._options.recipes else None
        with LayerIndexer(
            compression,
            span_size=self._options.span_size,
            thin=self._compact,
            on_output=builder.feed if builder is not None else None,
            entry_distance=POINT_DISTANCE if builder is not None else 0,
        ) as indexer:
            if builder is not None:
                builder.files = indexer.files
            for piece in self._pieces(layer):
                indexer.feed(piece)
            found = indexer.finish()
            points = [Point(*entry) for entry in indexer.entries]
        return found, builder.finish(compression, layer.size, points) if builder is not None else None

    def _take(self, layer: Descriptor, path: Path) -> BuiltLayer:
        packed, ztoc = read_kept_index(path)
        if ztoc.compressed_size != layer.size:
            raise StoreError(f"{path} is of a layer of {ztoc.compressed_size} bytes; {layer.digest} has {layer.size}")
        return self._add(layer, ztoc, packed, OWN_SPAN_SIZE)

    def _add(
        self, layer: Descriptor, ztoc: Ztoc, data: bytes, span_size: int, recipe: BuiltRecipe | None = None
    ) -> BuiltLayer:
        blob = self._writer.add(data)
        entry = ZtocEntry(
            manifests.Descriptor(COMPACT_ZTOC_MEDIA_TYPE if self._compact else ZTOC_MEDIA_TYPE, blob.digest, blob.size),
            layer.digest,
            layer.media_type,
            span_size,
            disable_xattrs=self._options.disable_xattrs and can_disable_xattrs(ztoc.files),
        )
        kept = self._keep_recipe(layer, recipe) if recipe is not None else None
        return BuiltLayer(layer, entry, len(ztoc.span_digests), len(ztoc.files), recipe=kept)

    def _keep_recipe(self, layer: Descriptor, recipe: BuiltRecipe) -> RecipeEntry:
        blob = self._writer.add(recipe.data)
        head = digest_of(recipe.data[: recipe.head_size])
        return RecipeEntry(
            manifests.Descriptor(RECIPE_MEDIA_TYPE, blob.digest, blob.size), layer.digest, recipe.head_size, head
        )

    def _pieces(self, layer: Descriptor) -> Iterator[bytes]:
        before = self._done
        for piece in in_pieces(self._reader.chunks(self._reference, layer, 0, layer.size)):
            self._done += len(piece)
            self._progress(self._done, self._total)
            yield piece
        self._done = before + layer.size

    def _check_digest(self, layer: Descriptor) -> None:
        """Tell a damaged layer from one that a zTOC cannot describe."""
        whole = hashlib.sha256()
        for piece in self._reader.chunks(self._reference, layer, 0, layer.size):
            whole.update(piece)
        if f"sha256:{whole.hexdigest()}" != layer.digest:
            raise _damaged(layer, f"it has digest sha256:{whole.hexdigest()}")


def in_pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Put small chunks together: what takes them costs something for each."""
    held, size = list[bytes](), 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _damaged(layer: Descriptor, why: str) -> InvalidInputError:
    return InvalidInputError(f"layer {layer.digest} is damaged: {why}", hint="Push or copy the image again.")


# --- documents


def _write_referring(
    writer: LayoutWriter, version: IndexVersion, image: PlatformImage, layers: tuple[BuiltLayer, ...]
) -> BuiltImage:
    manifest = image.manifest
    ztocs = tuple(layer.ztoc for layer in layers if layer.ztoc is not None)
    digest = ""
    if ztocs:
        subject = manifests.Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
        recipes = tuple(layer.recipe for layer in layers if layer.recipe is not None)
        added = writer.add(write_index(SociIndex(version, ztocs, subject=subject, recipes=recipes)), OCI_MANIFEST)
        listed = Descriptor(OCI_MANIFEST, added.digest, added.size, artifact_type=version.value)
        layout = OciLayout.at(writer.folder)
        former = layout.referrers(layout.reference(), manifest.digest, version.value)
        writer.list_manifest(listed, instead_of=[one.digest for one in former])
        digest = added.digest
    return BuiltImage(image.name, manifest.digest, digest, layers)


def _write_v2(  # noqa: PLR0913, PLR0917 - what was found
    reader: ContentReader,
    reference: ImageReference,
    writer: LayoutWriter,
    images: tuple[PlatformImage, ...],
    built: Mapping[str, tuple[BuiltLayer, ...]],
    name: str,
) -> tuple[BuiltImage, ...]:
    indexes: dict[str, bytes] = {}
    for before, layers in built.items():
        ztocs = tuple(layer.ztoc for layer in layers if layer.ztoc is not None)
        if ztocs:
            indexes[before] = write_index(SociIndex(IndexVersion.V2, ztocs))
            writer.add(indexes[before])
    root = reader.manifest(reference)
    annotated, found = list[tuple[str, bytes, Mapping[str, Any]]](), dict[str, str]()
    for before, data, platform in _all_manifests(reader, reference, root, images):
        manifest = annotate_manifest(data, manifests.digest_of(indexes[before]) if before in indexes else None)
        annotated.append((before, manifest, platform))
        found[before] = writer.add(manifest).digest
    bound = bind_image_index(root.data if isinstance(root, Index) else None, annotated, indexes)
    writer.list_manifest(writer.add(bound, OCI_INDEX), name)
    return tuple(
        BuiltImage(
            image.name,
            found[image.manifest.digest],
            manifests.digest_of(indexes[image.manifest.digest]) if image.manifest.digest in indexes else "",
            built[image.manifest.digest],
        )
        for image in images
    )


def _all_manifests(
    reader: ContentReader, reference: ImageReference, root: object, images: tuple[PlatformImage, ...]
) -> Iterator[tuple[str, bytes, Mapping[str, Any]]]:
    """Yield every image of the reference, also of platforms that get no index: `soci convert` rewrites them all."""
    if not isinstance(root, Index):
        yield from ((image.manifest.digest, image.manifest.data, image.platform) for image in images)
        return
    platforms = [entry.get("platform") or {} for entry in json.loads(root.data)["manifests"]]
    for (entry, _), platform in zip(root.manifests, platforms, strict=True):
        if is_image(entry):
            yield entry.digest, reader.manifest(reference.at(entry.digest)).data, platform
