"""What an update costs: the bytes a device that has one image fetches for another one, and which files are others."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge.errors import EdgeError, NotFoundError
from edge.images.delta.content import runs_of
from edge.images.delta.recipe import MAX_RECIPE_BYTES, RecipeHead, pieces_of, read_head, unpack_block
from edge.images.indexing.found import find_indexes
from edge.images.indexing.platforms import PlatformImage
from edge.images.oci.content import ContentReader
from edge.images.oci.documents import Descriptor
from edge.images.oci.references import ImageReference
from edge.images.soci.manifests import SociIndex
from edge.images.soci.tar_scan import TarScanner
from edge.images.soci.values import FileType


class LayerUpdate(StrEnum):
    """How a device comes by a layer."""

    SHARED = "SHARED"
    """It has it already."""
    DELTA = "DELTA"
    """What older layers do not have is fetched."""
    WHOLE = "WHOLE"
    """All of it is fetched."""


@dataclass(frozen=True, slots=True)
class LayerCost:
    """A layer of the newer image.

    Attributes:
        digest: As the registry has it.
        size: Its bytes there.
        fetched: How many a device fetches of it, and of its recipe.
        files: How many files it has.
        changed: The files that have something new, by their paths.
    """

    digest: str
    size: int
    how: LayerUpdate
    fetched: int
    files: int = 0
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What a device has.

    Attributes:
        layers: Digests of layers.
        recipes: Recipes of layers, whole.
    """

    layers: frozenset[str]
    recipes: tuple[bytes, ...]


def known_of(reader: ContentReader, reference: ImageReference, platform: str) -> Known:
    """Return what a device has that has an image.

    Raises:
        NotFoundError: There is no such image, or it has no index with recipes.
        EdgeError: As the reader's methods.
    """
    image, index = _indexed(reader, reference, platform)
    if index is None or not index.recipes:
        raise NotFoundError(
            f"{reference} has no recipes of its layers, so nobody knows what is in it",
            hint=f"`edge image index push {reference}` makes them.",
        )
    return Known(
        frozenset(layer.digest for layer in image.manifest.layers),
        tuple(_recipe(reader, reference, entry.blob.digest, entry.blob.size) for entry in index.recipes),
    )


def update_cost(reader: ContentReader, reference: ImageReference, platform: str, known: Known) -> tuple[LayerCost, ...]:
    """Return what each layer of an image costs a device.

    Raises:
        NotFoundError: There is no such image.
        InvalidInputError: A recipe is malformed.
        EdgeError: As the reader's methods.
    """
    image, index = _indexed(reader, reference, platform)
    chunks, blocks = set[bytes](), set[tuple[bytes, int]]()
    for data in known.recipes:
        head = read_head(data)
        blocks.update((block.digest, block.packed) for block in head.blocks)
        chunks.update(digest for _, _, digest in _read(head, data)[1])
    costs = []
    for layer in image.manifest.layers:
        entry = index.recipe_of(layer.digest) if index is not None else None
        if layer.digest in known.layers:
            costs.append(LayerCost(layer.digest, layer.size, LayerUpdate.SHARED, 0))
        elif entry is None:
            costs.append(LayerCost(layer.digest, layer.size, LayerUpdate.WHOLE, layer.size))
        else:
            data = _recipe(reader, reference, entry.blob.digest, entry.blob.size)
            costs.append(_delta(layer, data, entry.head_size, chunks, blocks))
    return tuple(costs)


def _delta(
    layer: Descriptor, data: bytes, head_size: int, chunks: set[bytes], blocks: set[tuple[bytes, int]]
) -> LayerCost:
    head = read_head(data)
    files, listed = _read(head, data)
    starts = [start for start, _, _ in listed]
    sizes = [size for _, size, _ in listed]
    missing = [number for number, (_, _, digest) in enumerate(listed) if digest not in chunks]
    fetched = head_size + sum(block.packed for block in head.blocks if (block.digest, block.packed) not in blocks)
    for run in runs_of(missing, starts, sizes):
        fetched += _compressed(head, starts[run[0]], starts[run[-1]] + sizes[run[-1]])
    begins = [offset for offset, _ in files]
    changed = dict.fromkeys(files[bisect_right(begins, starts[number]) - 1][1] for number in missing)
    return LayerCost(layer.digest, layer.size, LayerUpdate.DELTA, fetched, len(files), tuple(changed))


def _compressed(head: RecipeHead, start: int, end: int) -> int:
    if not head.points:
        return end - start
    index = bisect_right(head.points, start, key=lambda point: point.uncompressed) - 1
    last = bisect_left(head.points, end, key=lambda point: point.uncompressed)
    stop = head.points[last].compressed if last < len(head.points) else head.compressed_size
    return stop - head.points[index].compressed + (head.points[index].bits > 0)


def _read(head: RecipeHead, data: bytes) -> tuple[Sequence[tuple[int, str]], Sequence[tuple[int, int, bytes]]]:
    """Return files (where their content begins, path) and chunks (start, size, digest)."""
    scanner, chunks, position = TarScanner(), list[tuple[int, int, bytes]](), 0
    for block in head.blocks:
        for literal, chunk in pieces_of(block, unpack_block(block, data[block.start : block.start + block.packed])):
            scanner.feed(memoryview(literal))
            position += len(literal)
            if chunk is not None:
                scanner.skip(chunk.size)
                chunks.append((position, chunk.size, chunk.digest))
                position += chunk.size
    files = [(one.offset, one.name) for one in scanner.files if one.type is FileType.REGULAR and one.size]
    return files, chunks


def _indexed(reader: ContentReader, reference: ImageReference, platform: str) -> tuple[PlatformImage, SociIndex | None]:
    image, found = find_indexes(reader, reference, (platform,))[0]
    usable: Iterable[SociIndex] = (one.index for one in found if one.index is not None)
    return image, next((index for index in usable if index.recipes), None)


def _recipe(reader: ContentReader, reference: ImageReference, digest: str, size: int) -> bytes:
    return reader.blob(reference, Descriptor("", digest, size), MAX_RECIPE_BYTES)


def read_known(layers: Iterable[str], paths: Iterable[str]) -> Known:
    """Return what this device has, from the files its image service keeps.

    Raises:
        NotFoundError: There is no recipe.
    """
    recipes = list[bytes]()
    for path in paths:
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - as it was told
                data = file.read(MAX_RECIPE_BYTES)
            read_head(data)
        except (OSError, EdgeError):
            continue
        recipes.append(data)
    if not recipes:
        raise NotFoundError(
            "this device has no recipe of an older image of that repository",
            hint="An image whose index has recipes brings them once it is complete. `edge image ls` lists the images.",
        )
    return Known(frozenset(layers), tuple(recipes))
