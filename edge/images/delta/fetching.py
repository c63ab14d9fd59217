"""A recipe is fetched, but for the blocks that older recipes on this device have."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, Self

from edge.errors import EdgeError, InvalidInputError, StoreError
from edge.files import write_atomically
from edge.images.delta.recipe import MAX_RECIPE_BYTES, Block, read_head
from edge.images.oci.documents import Descriptor
from edge.images.oci.references import ImageReference
from edge.images.soci import manifests
from edge.images.soci.manifests import ZtocEntry

_GAP = 4 << 10
"""Bytes that are fetched though they are here, rather than asking twice."""


class PartSource(Protocol):
    """`RegistryClient`'s way to a part of a blob."""

    def chunks(self, reference: ImageReference, blob: Descriptor, offset: int, size: int) -> Iterator[bytes]:
        """Yield bytes of a blob, unverified."""
        ...


@dataclass(frozen=True, slots=True)
class RecipeSource:
    """What an index says of a layer besides its tar: where its recipe is, and its zTOC for when the recipe fails.

    Attributes:
        digest: Of the recipe.
        size: Its bytes.
        head_size: What of it is fetched first.
        head_digest: Of that.
        ztoc_media_type: Empty when the layer has none.
    """

    digest: str
    size: int
    head_size: int
    head_digest: str
    ztoc_media_type: str = ""
    ztoc_digest: str = ""
    ztoc_size: int = 0

    def save(self, folder: Path) -> None:
        """Keep it with the layer.

        Raises:
            StoreError: It cannot be written.
        """
        write_atomically(folder / "recipe.from", json.dumps(asdict(self)).encode())

    def ztoc_of(self, layer_digest: str) -> ZtocEntry | None:
        """Return the layer's zTOC, if it has one."""
        blob = manifests.Descriptor(self.ztoc_media_type, self.ztoc_digest, self.ztoc_size)
        return ZtocEntry(blob, layer_digest) if self.ztoc_digest else None

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Return what was kept, or None."""
        try:
            return cls(**json.loads((folder / "recipe.from").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


def fetch_recipe(
    client: PartSource, reference: ImageReference, wanted: RecipeSource, older: Iterable[Path], target: Path
) -> int:
    """Put a recipe together, and return how many bytes were fetched.

    Args:
        client: Where it is.
        reference: Its repository.
        wanted: What the index says of it.
        older: Recipes that may have blocks of it; those that cannot be read are passed over.
        target: Where it is written to.

    Raises:
        InvalidInputError: It is another than the index describes, or malformed.
        EdgeError: It cannot be had.
        StoreError: It cannot be written.
    """
    if not 0 < wanted.head_size <= wanted.size <= MAX_RECIPE_BYTES:
        raise InvalidInputError(f"a recipe of {wanted.size} bytes; {MAX_RECIPE_BYTES} are the most")
    blob = Descriptor("", wanted.digest, wanted.size)
    front = b"".join(client.chunks(reference, blob, 0, wanted.head_size))
    if f"sha256:{hashlib.sha256(front).hexdigest()}" != wanted.head_digest:
        raise InvalidInputError("the registry sent another recipe than the index names")
    head = read_head(front)
    if head.size != wanted.size:
        raise InvalidInputError(f"the recipe has {wanted.size} bytes, its blocks {head.size}")
    known = _known(older)
    data = bytearray(wanted.size)
    data[: len(front)] = front
    missing, fetched = list[Block](), len(front)
    for block in head.blocks:
        packed = known.get((block.digest, block.packed))
        if packed is None:
            missing.append(block)
        else:
            data[block.start : block.start + block.packed] = packed
    for start, end in _runs(missing):
        at = start
        for piece in client.chunks(reference, blob, start, end - start):
            data[at : at + len(piece)] = piece
            at += len(piece)
        fetched += end - start
    try:
        target.write_bytes(data)
    except OSError as error:
        raise StoreError(f"cannot keep {target}: {error.strerror}") from error
    return fetched


def _known(older: Iterable[Path]) -> dict[tuple[bytes, int], bytes]:
    """Blocks by digest and packed size: packed otherwise they would not fit in."""
    found: dict[tuple[bytes, int], bytes] = {}
    for path in older:
        try:
            data = path.read_bytes()
            head = read_head(data)
        except (OSError, EdgeError):
            continue
        for block in head.blocks:
            found[block.digest, block.packed] = data[block.start : block.start + block.packed]
    return found


def _runs(blocks: Iterable[Block]) -> list[tuple[int, int]]:
    runs = list[tuple[int, int]]()
    for block in blocks:
        end = block.start + block.packed
        if runs and block.start - runs[-1][1] <= _GAP:
            runs[-1] = runs[-1][0], end
        else:
            runs.append((block.start, end))
    return runs
