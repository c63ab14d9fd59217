"""Recipes: the same tar comes out, similar layers have the same blocks, and a hostile one is refused."""

import random
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import EdgeError, InvalidInputError
from edge.images.delta.cutting import MAX_CHUNK, MIN_CHUNK, Cutter, cut, digest
from edge.images.delta.fetching import RecipeSource, fetch_recipe
from edge.images.delta.laying_out import lay_out
from edge.images.delta.recipe import (
    POINT_DISTANCE,
    BuiltRecipe,
    Piece,
    RecipeWriter,
    pieces_of,
    read_head,
    unpack_block,
)
from edge.images.oci.documents import Descriptor
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.soci.builder import LayerIndexer
from edge.images.soci.manifests import digest_of
from edge.images.soci.values import Compression
from tests.images.delta.recipes import recipe_of
from tests.images.soci.layers import deflate, member, noise, pieces, small_files, tar, text

WORDS = text(0, 400_000)
FILES = {f"{number:03}": WORDS[number * 100 : number * 101 + 300] for number in range(700)}
REFERENCE = parse_reference("registry.example/app:1")


def _tar(files: dict[str, bytes]) -> bytes:
    return tar(tarfile.PAX_FORMAT, *((member(name), data) for name, data in files.items()))


def _pieces(recipe: bytes) -> list[Piece]:
    return [
        piece
        for block in read_head(recipe).blocks
        for piece in pieces_of(block, unpack_block(block, recipe[block.start : block.start + block.packed]))
    ]


@pytest.mark.parametrize("data", [text(1, 900_000), noise(2, 900_000), bytes(900_000), b"", b"x", noise(3, MIN_CHUNK)])
@pytest.mark.parametrize("piece", [1000, 65_521, 1 << 20])
def test_a_file_in_pieces_is_cut_as_a_whole_one(data: bytes, piece: int) -> None:
    cutter = Cutter()
    found = [chunk for one in pieces(data, piece) for chunk in cutter.feed(one)] + list(cutter.finish())
    assert found == [chunk for _, chunk in cut(data)]
    assert sum(chunk.size for chunk in found) == len(data)
    assert all(MIN_CHUNK <= chunk.size <= MAX_CHUNK for chunk in found[:-1])


def _lines(seed: int, size: int) -> bytes:
    return text(seed, size).replace(b" a", b"\na")


@pytest.mark.parametrize("make", [_lines, noise])
def test_what_is_inserted_changes_the_chunks_around_it_only(make: Callable[[int, int], bytes]) -> None:
    data = make(4, 2_000_000)
    before = {chunk.digest for _, chunk in cut(data)}
    after = [chunk for _, chunk in cut(data[:700_000] + b"inserted" + data[700_000:])]
    assert len(after) > 10
    assert sum(chunk.digest not in before for chunk in after) <= 3


def test_a_recipe_changes_nothing_of_the_index() -> None:
    blob = deflate(small_files(tarfile.PAX_FORMAT) + _tar({"large": text(3, 2_000_000)}), 6)
    found = []
    for distance in (0, POINT_DISTANCE):
        with LayerIndexer(Compression.GZIP, span_size=MIN_CHUNK * 16, entry_distance=distance) as indexer:
            for piece in pieces(blob):
                indexer.feed(piece)
            found.append((indexer.finish(), len(indexer.entries)))
    (plain, none), (same, entries) = found
    assert same == plain
    assert none == 0
    assert entries > len(plain.ztoc.span_digests)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("piece", [999, 1 << 20])
def test_a_recipe_and_the_chunks_give_the_same_tar(form: int, piece: int) -> None:
    whole = small_files(form)
    recipe = recipe_of(deflate(whole, 6), piece=piece)
    chunks = {}
    made = bytearray()
    for literal, chunk in _pieces(recipe.data):
        made += literal
        if chunk is not None:
            data = whole[len(made) : len(made) + chunk.size]
            chunks[chunk.digest] = data
            assert digest(data) == chunk.digest
            made += data
    assert bytes(made) == whole
    assert chunks


def test_a_layer_with_one_more_file_has_the_same_blocks_elsewhere() -> None:
    more = {**dict(list(FILES.items())[:40]), "039-more": text(999, 50_000), **dict(list(FILES.items())[40:])}
    before, after = (read_head(recipe_of(deflate(_tar(one), 6)).data) for one in (FILES, more))
    assert len(before.blocks) > 3
    known = {block.digest for block in before.blocks}
    assert sum(block.digest not in known for block in after.blocks) <= 2


class Parts:
    """A recipe in a registry."""

    def __init__(self, data: bytes) -> None:
        self.data, self.sent = data, 0

    def chunks(self, _reference: ImageReference, _blob: Descriptor, offset: int, size: int) -> list[bytes]:
        self.sent += size
        return [self.data[offset : offset + size]]


def _source(recipe: BuiltRecipe) -> RecipeSource:
    return RecipeSource(
        digest_of(recipe.data), len(recipe.data), recipe.head_size, digest_of(recipe.data[: recipe.head_size])
    )


def test_blocks_that_an_older_recipe_has_are_not_fetched(tmp_path: Path) -> None:
    old = recipe_of(deflate(_tar(FILES), 6))
    new = recipe_of(deflate(_tar({**FILES, "060": text(998, 40_000)}), 6))
    (tmp_path / "old").write_bytes(old.data)
    (tmp_path / "torn").write_bytes(old.data[:50])
    parts = Parts(new.data)
    known = [tmp_path / "torn", tmp_path / "missing", tmp_path / "old"]
    count = fetch_recipe(parts, REFERENCE, _source(new), known, tmp_path / "new")  # type: ignore[arg-type]
    assert (tmp_path / "new").read_bytes() == new.data
    assert count == parts.sent < len(new.data) * 0.6


def test_a_head_that_is_another_one_is_refused(tmp_path: Path) -> None:
    recipe = recipe_of(deflate(_tar(FILES), 6))
    parts = Parts(recipe.data[:60] + b"?" + recipe.data[61:])
    with pytest.raises(InvalidInputError, match="another recipe"):
        fetch_recipe(parts, REFERENCE, _source(recipe), [], tmp_path / "new")  # type: ignore[arg-type]


def test_a_changed_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    blob = deflate(_tar(FILES), 6)
    data = recipe_of(blob).data
    chooser = random.Random(5)
    refused = 0
    for _ in range(100):
        spoilt = bytearray(data)
        spoilt[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
        (tmp_path / "recipe").write_bytes(spoilt)
        try:
            lay_out(tmp_path, len(blob), gzip=True)
        except EdgeError:
            refused += 1
    # A few bits of zlib's own headers mean nothing.
    assert refused >= 95


@pytest.mark.parametrize("size", [0, 1, 20, 200])
def test_a_recipe_that_breaks_off_is_refused(tmp_path: Path, size: int) -> None:
    blob = deflate(_tar(FILES), 6)
    (tmp_path / "recipe").write_bytes(recipe_of(blob).data[:size])
    with pytest.raises(InvalidInputError):
        lay_out(tmp_path, len(blob), gzip=True)


def test_a_recipe_of_another_layer_is_refused(tmp_path: Path) -> None:
    blob = deflate(_tar(FILES), 6)
    (tmp_path / "recipe").write_bytes(recipe_of(blob).data)
    for size, gzip in ((len(blob) + 1, True), (len(blob), False)):
        with pytest.raises(InvalidInputError, match="is for a layer"):
            lay_out(tmp_path, size, gzip=gzip)


def _rewritten(blob: bytes, change: Callable[[list[Piece]], list[Piece]]) -> bytes:
    data = recipe_of(blob).data
    writer = RecipeWriter()
    for piece in change(_pieces(data)):
        writer.add(piece)
    return writer.finish(Compression.GZIP, len(blob), read_head(data).points).data


def _content_as_literal(found: list[Piece]) -> list[Piece]:
    one = found[0].chunk
    assert one is not None
    return [Piece(found[0].literal + bytes(one.size), None), *found[1:]]


def _chunk_in_a_header(found: list[Piece]) -> list[Piece]:
    one = found[1]
    assert one.chunk is not None
    return [found[0], Piece(one.literal[:100], one.chunk), Piece(one.literal[100 + one.chunk.size :], one.chunk)]


def _a_file_less(found: list[Piece]) -> list[Piece]:
    return found[1:]


@pytest.mark.parametrize("change", [_content_as_literal, _chunk_in_a_header, _a_file_less])
def test_chunks_that_are_not_the_files_content_are_refused(
    tmp_path: Path, change: Callable[[list[Piece]], list[Piece]]
) -> None:
    files = {name: data[:600] for name, data in list(FILES.items())[:10]}
    blob = deflate(_tar(files), 6)
    (tmp_path / "recipe").write_bytes(_rewritten(blob, change))
    with pytest.raises(InvalidInputError):
        lay_out(tmp_path, len(blob), gzip=True)


def test_a_block_that_inflates_without_end_is_refused() -> None:
    blob = deflate(_tar(FILES), 6)
    data = recipe_of(blob).data
    block = read_head(data).blocks[0]
    bomb = zlib.compress(bytes(64 << 20), 9)
    with pytest.raises(InvalidInputError, match="inflates to more"):
        unpack_block(block, bomb)
