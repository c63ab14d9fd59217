"""What a zTOC says, as values: files, spans and the compression's checkpoints."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

DEFAULT_SPAN_SIZE: Final = 4 << 20
"""Uncompressed bytes between checkpoints; `soci create --span-size`."""

DEFAULT_MIN_LAYER_SIZE: Final = 10 << 20
"""Compressed bytes below which a layer gets no zTOC; `soci create --min-layer-size`."""

DEFAULT_BUILD_TOOL: Final = "AWS SOCI CLI v0.2"
"""The build tool identifier that `soci` writes. It is part of the zTOC, and so of its digest."""

ZTOC_VERSION: Final = "0.9"

_XATTR_PREFIX: Final = "SCHILY.xattr."


class Compression(IntEnum):
    """A layer's compression, numbered as in the zTOC."""

    GZIP = 1
    UNCOMPRESSED = 2


class FileType(StrEnum):
    """What a tar member is, in the zTOC's words."""

    REGULAR = "reg"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER = "char"
    BLOCK = "block"
    FIFO = "fifo"


class FileMetadata(NamedTuple):
    """One tar member.

    Text that is not UTF-8 is kept with `surrogateescape`. `mode` and the device numbers are the tar's own numbers of up
    to 64 bits: use what of them the kernel knows. `modified` is in nanoseconds since 1970 UTC. `offset` and `size` are
    bytes in the uncompressed tar; a member other than a regular file has no data, whatever `size` says. `pax` holds all
    PAX records, sorted by key.
    """

    name: str
    type: FileType
    offset: int
    size: int
    linkname: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    uname: str = ""
    gname: str = ""
    modified: int = 0
    devmajor: int = 0
    devminor: int = 0
    pax: tuple[tuple[str, bytes], ...] = ()

    @property
    def xattrs(self) -> dict[str, bytes]:
        """Extended attributes, as SOCI recognizes them: PAX records `SCHILY.xattr.NAME`."""
        skip = len(_XATTR_PREFIX)
        return {key[skip:]: value for key, value in self.pax if key.startswith(_XATTR_PREFIX)}


class Span(NamedTuple):
    """A part of a layer that can be fetched, verified and inflated by itself; ends are exclusive.

    When `bits` is not zero, the span's first compressed byte belongs to the span before it too: only the byte's `bits`
    high bits are this span's.
    """

    number: int
    compressed_start: int
    compressed_end: int
    uncompressed_start: int
    uncompressed_end: int
    bits: int
    digest: str

    @property
    def size(self) -> int:
        """Uncompressed bytes."""
        return self.uncompressed_end - self.uncompressed_start


@dataclass(frozen=True, slots=True)
class Ztoc:
    """A layer's table of contents and checkpoints.

    Attributes:
        compressed_size: Bytes of the layer as it is in the registry.
        uncompressed_size: Bytes of the tar up to its end mark: padding after it is not counted.
        files: One for each tar member, in tar order.
        span_digests: `sha256:<hex>` of each span's compressed bytes.
        checkpoints: The compression's own block, encoded (`edge.images.soci.checkpoints`).
    """

    compressed_size: int
    uncompressed_size: int
    files: tuple[FileMetadata, ...]
    compression: Compression
    max_span_id: int
    span_digests: tuple[str, ...]
    checkpoints: bytes | memoryview = field(repr=False)
    version: str = ZTOC_VERSION
    build_tool: str = DEFAULT_BUILD_TOOL
