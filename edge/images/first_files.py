"""What a container reads first, whatever it does then: its program, the loader, the C library.

Between the moment an image can be started and its container's first read, Podman makes the container, and the link
would be idle. What comes meanwhile is not waited for later. It is a hint: whatever is unusual in an image ends the
search.
"""

import json
import posixpath
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from edge.images.namespace import Content
from edge.images.tree import LayerTree, Record

_HEAD_BYTES: Final = 4096
_MOST_LINKS: Final = 40
_MOST_SCRIPTS: Final = 4
"""As Linux follows them."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Podman's, where the image sets none."""
_LIBRARY: Final = "libc.so.6"
_ELF64: Final = Struct("<4sBB10xHHIQQQIHHH")
"""elf(5): magic, class, byte order, type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum."""
_SEGMENT: Final = Struct("<IIQQQQ")
"""elf(5): type, flags, offset, vaddr, paddr, filesz."""
_IS_64_BIT, _IS_LITTLE_ENDIAN, _INTERPRETER = 2, 1, 3


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer of the image that is searched."""

    tree: LayerTree
    content: Content


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    layer: ImageLayer
    record: Record

    def head(self) -> bytes:
        return bytes(self.layer.content.read(self.record, 0, min(_HEAD_BYTES, self.record.size)))


def read_first_files(layers: Sequence[ImageLayer], configuration: bytes) -> list[str]:
    """Read the beginning of each file that is needed first, and return their paths.

    Args:
        layers: Of the image, the top one first.
        configuration: The image's.

    Raises:
        EdgeError: A content cannot be had.
    """
    paths: list[str] = []
    found = next(filter(None, (_find(layers, path) for path in _programs(configuration))), None)
    for _ in range(_MOST_SCRIPTS):
        if found is None or not found.record.size:
            return paths
        paths.append(found.path)
        head = found.head()
        if head[:2] != b"#!":
            break
        script = head[2:].split(b"\n")[0].split()
        found = _find(layers, script[0].decode(errors="surrogateescape")) if script else None
    else:
        return paths
    loader = _find(layers, _interpreter(head))
    for one in (loader, loader and _find(layers, posixpath.join(posixpath.dirname(loader.path), _LIBRARY))):
        if one is not None and one.record.size:
            paths.append(one.path)
            one.head()
    return paths


def _programs(configuration: bytes) -> Iterator[str]:
    """Where the image's program may be: what it says, or that name in each folder of its PATH."""
    config = json.loads(configuration).get("config")
    if not isinstance(config, dict):
        return
    words = [*_texts(config.get("Entrypoint")), *_texts(config.get("Cmd"))]
    if not words:
        return
    if "/" in words[0]:
        yield posixpath.join("/", str(config.get("WorkingDir") or ""), words[0])
        return
    set_there = (text.removeprefix("PATH=") for text in _texts(config.get("Env")) if text.startswith("PATH="))
    for folder in next(set_there, _PATH).split(":"):
        yield posixpath.join("/", folder, words[0])


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _interpreter(head: bytes) -> str:
    """The loader a dynamic program names; empty for a static one, or what is none."""
    try:
        magic, bits, order, _, _, _, _, table, _, _, _, size, count = _ELF64.unpack_from(head)
        if (magic, bits, order) != (b"\x7fELF", _IS_64_BIT, _IS_LITTLE_ENDIAN):
            return ""
        for number in range(count):
            kind, _, offset, _, _, length = _SEGMENT.unpack_from(head, table + number * size)
            if kind == _INTERPRETER:
                return head[offset : offset + length].rstrip(b"\x00").decode(errors="surrogateescape")
    except struct.error:
        return ""
    return ""


@dataclass(slots=True)
class _Walk:
    """On the way through an image's folders, as its container will see them: upper layers first, links followed."""

    names: list[str]
    folders: "list[tuple[str, _Parts]]"
    links: int = 0

    def step(self) -> _Found | None:
        """Take the next name; return the file, once it is there. `names` is empty where the way ends."""
        name = self.names.pop(0)
        if name == "..":
            self.folders = self.folders[: max(1, len(self.folders) - 1)]
            return None
        there = _named(self.folders[-1][1], name)
        if there and stat.S_ISDIR(there[0][1].mode):
            self.folders.append((name, there))
        elif there and stat.S_ISLNK(there[0][1].mode) and self.links < _MOST_LINKS:
            self._follow(*there[0])
        elif there and stat.S_ISREG(there[0][1].mode) and not self.names:
            return _Found("/".join((*(folder for folder, _ in self.folders), name)), *there[0])
        else:
            self.names = []
        return None

    def _follow(self, layer: ImageLayer, link: Record) -> None:
        self.links += 1
        target = layer.tree.target(link).decode(errors="surrogateescape")
        if target.startswith("/"):
            self.folders = self.folders[:1]
        self.names = _names(target) + self.names


def _find(layers: Sequence[ImageLayer], path: str) -> _Found | None:
    """Find a regular file by its absolute path."""
    root = [(layer, layer.tree.record(0)) for layer in layers]
    walk = _Walk(_names(path) if path.startswith("/") else [], [("", root)])
    while walk.names:
        if (found := walk.step()) is not None:
            return found
    return None


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]


_Parts = list[tuple[ImageLayer, Record]]
"""A folder: where each layer has it, the uppermost first. Of a file, the one that counts."""


def _named(folder: _Parts, name: str) -> _Parts:
    """What a name means in a folder; nothing where it is not there."""
    there: _Parts = []
    for layer, record in folder:
        number = layer.tree.find(record, name.encode(errors="surrogateescape"))
        if number is None:
            continue
        found = layer.tree.record(number)
        if not stat.S_ISDIR(found.mode):
            # Below a folder of an upper layer it is hidden. A whiteout is seen by its mode, which is no file's.
            return there or [(layer, found)]
        there.append((layer, found))
    return there
