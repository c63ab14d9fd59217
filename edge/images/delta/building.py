"""A layer's recipe is made while the layer is indexed."""

from collections.abc import Sequence

from edge.images.delta.cutting import Chunk, Cutter
from edge.images.delta.recipe import BuiltRecipe, Piece, Point, RecipeWriter
from edge.images.soci.values import Compression, FileMetadata, FileType


class RecipeBuilder:
    """Takes the tar in pieces, each after its members up to there are in `files`."""

    def __init__(self) -> None:
        self.files: Sequence[FileMetadata] = ()
        self._writer = RecipeWriter()
        self._cutter = Cutter()
        self._literal = bytearray()
        self._member = 0
        self._left = 0
        """Bytes of the file that goes on."""

    def feed(self, position: int, view: memoryview) -> None:
        """Take the tar's bytes from `position` on."""
        at, end = 0, len(view)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                for chunk in self._cutter.feed(view[at : at + step]):
                    self._add(chunk)
                self._left -= step
                if not self._left:
                    for chunk in self._cutter.finish():
                        self._add(chunk)
                at += step
                continue
            start = self._next_content(position + at)
            step = end - at if start is None else min(start - position, end) - at
            self._literal += view[at : at + step]
            at += step
            if start == position + at:
                self._left = self.files[self._member].size
                self._member += 1

    def _next_content(self, position: int) -> int | None:
        """Where the next file's content begins, as far as is known."""
        while self._member < len(self.files):
            entry = self.files[self._member]
            if entry.type is FileType.REGULAR and entry.size and entry.offset >= position:
                return entry.offset
            self._member += 1
        return None

    def _add(self, chunk: Chunk) -> None:
        self._writer.add(Piece(bytes(self._literal), chunk))
        self._literal.clear()

    def finish(self, compression: Compression, compressed_size: int, points: Sequence[Point]) -> BuiltRecipe:
        """Say that the tar is at its end.

        Raises:
            InvalidInputError: Such a layer has no recipe.
        """
        self._writer.add(Piece(bytes(self._literal), None))
        return self._writer.finish(compression, compressed_size, points)
