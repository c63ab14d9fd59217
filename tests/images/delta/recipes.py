"""Layers with their recipes, and what a device has of an older one."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from edge.images.blob_cache import BlobCache
from edge.images.delta.building import RecipeBuilder
from edge.images.delta.chunk_file import read_chunk_file
from edge.images.delta.content import DeltaContent
from edge.images.delta.laying_out import lay_out
from edge.images.delta.older import OlderFiles, OlderLayer
from edge.images.delta.recipe import POINT_DISTANCE, BuiltRecipe, Point
from edge.images.inflated import InflatedSpans
from edge.images.pulse import Pulse
from edge.images.soci.builder import LayerIndexer
from edge.images.soci.values import Compression
from edge.images.tree import LayerTree, Record
from tests.images.soci.layers import pieces


def recipe_of(blob: bytes, *, gzip: bool = True, piece: int = 65_521) -> BuiltRecipe:
    """Index a layer for its recipe."""
    builder, compression = RecipeBuilder(), Compression.GZIP if gzip else Compression.UNCOMPRESSED
    with LayerIndexer(compression, on_output=builder.feed, entry_distance=POINT_DISTANCE) as indexer:
        builder.files = indexer.files
        for one in pieces(blob, piece):
            indexer.feed(one)
        indexer.finish()
        points = [Point(*entry) for entry in indexer.entries]
    return builder.finish(compression, len(blob), points)


class OldContent:
    """An older layer's files, by the place of their content."""

    def __init__(self, tar: bytes) -> None:
        self.tar = tar
        self.reads = 0

    def local(self, file: Record, offset: int, size: int) -> bytes:
        self.reads += 1
        return self.tar[file.offset + offset : file.offset + offset + size]


class Source:
    """A layer in a registry; a test may spoil or refuse it."""

    def __init__(self, blob: bytes) -> None:
        self.blob = blob
        self.asked: list[tuple[int, int]] = []
        self.spoil = 0

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        self.asked.append((offset, size))
        data = bytearray(self.blob[offset : offset + size])
        if self.spoil:
            self.spoil -= 1
            data[len(data) // 2] ^= 0x10
        yield from pieces(bytes(data), 10_000)


class Update:
    """A newer layer on a device that has an older one; files are of the newer one."""

    def __init__(self, folder: Path, old: bytes, new: bytes, blob: bytes, *, gzip: bool = True) -> None:
        for name in ("old", "new"):
            (folder / name).mkdir()
        self._lay_out(folder / "old", old, gzip=False)
        self._lay_out(folder / "new", blob, gzip=gzip)
        self.old = OldContent(old)
        self.older = [OlderLayer("old", LayerTree(folder / "old" / "tree"), self.old)]
        self.source, self.told = Source(blob), list[str]()
        self.tree, self.folder, self.tar = LayerTree(folder / "new" / "tree"), folder / "new", new
        self.table = read_chunk_file(self.folder / "chunks")
        self.content = self.open()

    def open(self, read_seconds: float = 2.0) -> DeltaContent:
        """As after a restart."""
        return DeltaContent(
            "new", tree=self.tree, table=self.table, cache=BlobCache(self.folder, len(self.tar), self.table.count),
            older=OlderFiles(lambda: self.older), inflated=InflatedSpans(lambda: 1 << 20), source=self.source,
            pulse=Pulse(), read_seconds=read_seconds, told=self.told.append,
        )  # fmt: skip

    def _lay_out(self, folder: Path, blob: bytes, *, gzip: bool) -> None:
        (folder / "recipe").write_bytes(recipe_of(blob, gzip=gzip).data)
        lay_out(folder, len(blob), gzip=gzip)

    def record(self, name: str) -> Record:
        """A file in the layer's root."""
        number = self.tree.find(self.tree.record(0), name.encode())
        assert number is not None
        return self.tree.record(number)

    def read(self, name: str, content: DeltaContent | None = None) -> bytes:
        """A file, whole."""
        record = self.record(name)
        return bytes((content or self.content).read(record, 0, record.size))

    def check(self, files: Mapping[str, bytes]) -> None:
        """All files are what they are."""
        assert {name: self.read(name) for name in files} == dict(files)

    @property
    def fetched(self) -> int:
        """Bytes that were asked of the source."""
        return sum(size for _, size in self.source.asked)
