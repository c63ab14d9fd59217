"""A recipe becomes what a layer is served from: `tree`, `chunks`, and `blob`, a tar that has everything but content."""

import os
from collections.abc import Iterator
from pathlib import Path

from edge.errors import InvalidInputError
from edge.files import store_error
from edge.images.delta.chunk_file import write_chunk_file
from edge.images.delta.recipe import Piece, RecipeHead, pieces_of, read_head, unpack_block
from edge.images.soci.tar_scan import TarScanner
from edge.images.soci.values import Compression, FileType
from edge.images.tree import write_tree


def lay_out(folder: Path, size: int, *, gzip: bool) -> dict[str, int]:
    """Make the files of a layer's folder from the `recipe` in it.

    Args:
        folder: Where it is.
        size: Bytes of the layer in its registry.
        gzip: Whether it is compressed.

    Returns:
        `content`: bytes of its files.

    Raises:
        InvalidInputError: The recipe is malformed, or of another layer.
        StoreError: The files cannot be written.
    """
    data = (folder / "recipe").read_bytes()
    head = read_head(data)
    if head.compressed_size != size or (head.compression is Compression.GZIP) != gzip:
        raise InvalidInputError(f"the recipe is for a layer of {head.compressed_size} bytes, not {size}")
    scanner, chunks = TarScanner(), list[tuple[int, int, bytes]]()
    position = 0
    try:
        blob = os.open(folder / "blob", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(blob, head.tar_size)
            for literal, chunk in _pieces(head, data):
                scanner.feed(memoryview(literal))
                os.pwrite(blob, literal, position)
                position += len(literal)
                if chunk is not None:
                    scanner.skip(chunk.size)
                    chunks.append((position, chunk.size, chunk.digest))
                    position += chunk.size
            os.fsync(blob)
        finally:
            os.close(blob)
    except OSError as error:
        raise store_error(f"cannot write {folder / 'blob'}", error) from error
    scanner.finish()
    content = sum(entry.size for entry in scanner.files if entry.type is FileType.REGULAR)
    # Whatever of a file were no chunk would be read as nothing.
    if not chunks or content != sum(length for _, length, _ in chunks):
        raise InvalidInputError("the recipe has other chunks than its files have content")
    write_tree(folder / "tree", scanner.files)
    write_chunk_file(folder / "chunks", head, chunks)
    return {"content": content}


def _pieces(head: RecipeHead, data: bytes) -> Iterator[Piece]:
    for block in head.blocks:
        yield from pieces_of(block, unpack_block(block, data[block.start : block.start + block.packed]))
