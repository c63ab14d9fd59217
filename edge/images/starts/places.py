"""Where a profile's files lie in an image: paths become ranges of its layers' tars."""

import stat
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from edge.images.tree import LayerTree, Record
from edge.model.start_profile import FileRange, Gaps

_OPAQUE: Final = b"trusted.overlay.opaque"


class TarRange(NamedTuple):
    """Bytes `start` to before `end` of a layer's tar; layers are numbered from the lowest on, from 0."""

    layer: int
    start: int
    end: int


def place(trees: Sequence[LayerTree | None], ranges: Sequence[FileRange], nearness: int = 0) -> tuple[TarRange, ...]:
    """Return where ranges lie, in their order, each byte once.

    What the image does not have, or has otherwise than as a regular file, is left out.

    Args:
        trees: The layers' files, the lowest layer first; None for one that is not asked for.
        ranges: Of files as a container sees them.
        nearness: Ranges of a file that lie no farther apart are one.
    """
    covered: defaultdict[int, Gaps] = defaultdict(Gaps)
    files: dict[str, tuple[int, Record] | None] = {}
    found: list[TarRange] = []
    for one in ranges:
        if one.path not in files:
            files[one.path] = find(trees, one.path)
        file = files[one.path]
        if file is None or trees[file[0]] is None:
            continue
        layer, record = file
        first, last = record.offset + min(one.start, record.size), record.offset + min(one.end, record.size)
        if nearness and found and found[-1].layer == layer and 0 < first - found[-1].end <= nearness:
            first = found[-1].end
        for start, end in covered[layer].add(first, last) if first < last else ():
            if found and (found[-1].layer, found[-1].end) == (layer, start):
                found[-1] = found[-1]._replace(end=end)
            else:
                found.append(TarRange(layer, start, end))
    return tuple(found)


def find(trees: Sequence[LayerTree | None], path: str) -> tuple[int, Record] | None:
    """Find the regular file that a container sees at `path`; links are not followed: who reads has followed them."""
    names = [name for name in path.encode("utf-8", "surrogateescape").split(b"/") if name]
    for layer in range(len(trees) - 1, -1, -1):
        tree = trees[layer]
        if tree is None or not names:
            continue
        record, hidden = _walk(tree, names)
        if record is not None:
            return (layer, record) if stat.S_ISREG(record.mode) else None
        if hidden:
            return None
    return None


def _walk(tree: LayerTree, names: Sequence[bytes]) -> tuple[Record | None, bool]:
    """Return what a layer has at a path, and else whether it hides what the layers below have there."""
    record = tree.record(0)
    opaque = False
    for name in names:
        if not stat.S_ISDIR(record.mode):
            return None, True
        opaque = opaque or _OPAQUE in tree.xattrs(record)
        number = tree.find(record, name)
        if number is None:
            return None, opaque
        record = tree.record(number)
    return tree.record(record.inode), False
