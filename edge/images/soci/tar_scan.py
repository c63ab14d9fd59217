"""List a tar's members while it streams past."""

from typing import Final

from edge.errors import InvalidInputError
from edge.images.soci.members import problem_with
from edge.images.soci.tar_fields import (
    BLOCK_BYTES,
    Header,
    align,
    malformed,
    parse_decimal,
    parse_header,
    parse_pax,
    parse_pax_time,
)
from edge.images.soci.values import FileMetadata, FileType
from edge.images.soci.ztoc import MAX_FILES

_MAX_SPECIAL_BYTES: Final = 1 << 20
"""A PAX header or a GNU long name; the limit of Go's reader."""

_NANO: Final = 1_000_000_000
_ZERO_BLOCK: Final = bytes(BLOCK_BYTES)
_TYPES: Final = {
    b"0": FileType.REGULAR,
    b"1": FileType.HARDLINK,
    b"2": FileType.SYMLINK,
    b"3": FileType.CHARACTER,
    b"4": FileType.BLOCK,
    b"5": FileType.DIRECTORY,
    b"6": FileType.FIFO,
}
_META: Final = frozenset({b"x", b"L", b"K"})
_UNSUPPORTED: Final = {
    b"g": "it is a global PAX header",
    b"S": "it is a GNU sparse file",
    b"7": "it is a contiguous file",
}


class TarScanner:
    """Takes a tar in pieces and lists its members in `files`.

    Attributes:
        files: The members seen so far, in tar order.
        end: Offset behind the end mark; final after `finish`.
    """

    def __init__(self) -> None:
        self.files: list[FileMetadata] = []
        self.end = 0
        self._skip = 0
        self._padding = 0
        self._held = bytearray()
        self._meta: Header | None = None
        self._want = BLOCK_BYTES
        self._zero_before = False
        self._done = False
        self._pax: dict[bytes, bytes] = {}
        self._long: dict[bytes, bytes] = {}

    def feed(self, data: memoryview) -> None:
        """Take the next piece.

        Raises:
            InvalidInputError: It is not a tar, or has a member that a zTOC cannot describe.
        """
        at, size = 0, len(data)
        while at < size and not self._done:
            if self._skip:
                step = min(self._skip, size - at)
                self._skip -= step
                self.end += step
                at += step
                continue
            if not self._held and size - at >= self._want:
                self.end += self._want
                at += self._want
                self._take(bytes(data[at - self._want : at]))
                continue
            step = min(self._want - len(self._held), size - at)
            self._held += data[at : at + step]
            self.end += step
            at += step
            if len(self._held) == self._want:
                block = bytes(self._held)
                self._held.clear()
                self._take(block)

    @property
    def content_left(self) -> int:
        """Bytes of the member's content that come next."""
        return max(0, self._skip - self._padding)

    def skip(self, count: int) -> None:
        """Say that the next bytes are content of the member, whatever they are.

        Raises:
            InvalidInputError: The member has not as many.
        """
        if count > self.content_left:
            raise malformed(f"content at byte {self.end}, where there is none")
        self._skip -= count
        self.end += count

    def finish(self) -> None:
        """Say that the tar is at its end.

        Raises:
            InvalidInputError: It breaks off.
        """
        if not self._done and (self._held or self._meta or self._skip > self._padding):
            raise malformed(f"it breaks off at byte {self.end}")

    def _take(self, block: bytes) -> None:
        if self._meta is not None:
            self._take_meta(self._meta, block)
        elif block == _ZERO_BLOCK:
            self._done, self._zero_before = self._zero_before, True
        elif self._zero_before:
            raise malformed("a block follows the end mark's first half")
        else:
            self._take_header(parse_header(block))

    def _take_header(self, header: Header) -> None:
        if header.type not in _META:
            self._add(header)
            return
        if not 0 <= header.size <= _MAX_SPECIAL_BYTES:
            raise malformed(f"an extended header of {header.size} bytes")
        self._meta, self._want = header, header.size
        if not header.size:
            self._take_meta(header, b"")

    def _take_meta(self, header: Header, body: bytes) -> None:
        if header.type == b"x":
            self._pax = parse_pax(body)
        else:
            self._long[header.type] = body.partition(b"\0")[0]
        self._meta, self._want = None, BLOCK_BYTES
        self._skip_over(0, header.size)

    def _skip_over(self, data: int, size: int) -> None:
        self._padding = align(size) - size
        self._skip = data + self._padding

    def _add(self, header: Header) -> None:
        pax, long = self._pax, self._long
        self._pax, self._long = {}, {}
        entry = _describe(header, pax, long, self.end)
        if len(self.files) >= MAX_FILES:
            raise malformed(f"it has more than {MAX_FILES} members")
        self.files.append(entry)
        size = entry.size if entry.type is FileType.REGULAR else 0
        self._skip_over(size, size)


def _describe(header: Header, pax: dict[bytes, bytes], long: dict[bytes, bytes], offset: int) -> FileMetadata:
    name, link = header.name, header.linkname
    uid, gid, uname, gname, size = header.uid, header.gid, header.uname, header.gname, header.size
    modified = header.modified * _NANO
    if pax:
        # An empty value leaves the header's own in force.
        name, link = pax.get(b"path") or name, pax.get(b"linkpath") or link
        uname, gname = pax.get(b"uname") or uname, pax.get(b"gname") or gname
        uid, gid = _decimal(pax, b"uid", uid), _decimal(pax, b"gid", gid)
        size = _decimal(pax, b"size", size)
        modified = parse_pax_time(pax[b"mtime"]) if pax.get(b"mtime") else modified
        if any(key.startswith(b"GNU.sparse.") for key in pax):
            raise _refused(name, "it is a GNU sparse file")
    name, link = long.get(b"L") or name, long.get(b"K") or link
    kind = _type(header.type, name)
    if size < 0:
        raise malformed(f"{name[:200]!r} has the size {size}")
    if problem := problem_with(name, kind, link):
        raise _refused(name, problem)
    return FileMetadata(
        _text(name),
        kind,
        offset,
        size,
        _text(link),
        header.mode,
        uid & 0xFFFF_FFFF,
        gid & 0xFFFF_FFFF,
        _text(uname),
        _text(gname),
        modified,
        header.devmajor,
        header.devminor,
        tuple((_text(key), pax[key]) for key in sorted(pax)) if pax else (),
    )


def _decimal(pax: dict[bytes, bytes], key: bytes, otherwise: int) -> int:
    value = pax.get(key)
    return parse_decimal(value) if value else otherwise


def _type(flag: bytes, name: bytes) -> FileType:
    if flag == b"\0":
        return FileType.DIRECTORY if name.endswith(b"/") else FileType.REGULAR
    kind = _TYPES.get(flag)
    if kind is None:
        raise _refused(name, _UNSUPPORTED.get(flag, f"its type is {flag!r}"))
    return kind


def _refused(name: bytes, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the layer's member {name[:200]!r} cannot be indexed: {why}",
        hint="Such a layer is pulled whole.",
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
