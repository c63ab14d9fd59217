"""zTOC 0.9, encoded and decoded.

Schema: awslabs/soci-snapshotter, `ztoc/fbs/ztoc.fbs`. The order in which things are written is that of its
`ztoc_marshaler.go`, because a zTOC is named by the digest of its bytes.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from edge.images.soci.checkpoints import MAX_SPANS, span_table
from edge.images.soci.flatbuffer import Field, Reader, Shape, Writer
from edge.images.soci.members import problem_with
from edge.images.soci.times import format_time, parse_time
from edge.images.soci.values import Compression, FileMetadata, FileType, Ztoc

MAX_FILES: Final = 1 << 19
"""Members of one layer: what a small device can hold a table of."""

MAX_ZTOC_BYTES: Final = 256 << 20
"""Half a million files and eight thousand checkpoints fit in."""

_MAX_RECORDS: Final = 1 << 16
"""PAX records of one file; a header of 1 MiB, the most that tar readers accept, cannot hold more that mean anything."""

_MAX_WORD_BYTES: Final = 64
"""A type, a time, the name of an owner that is kept once for all its files."""

_HEADER_BYTES: Final = 512
"""A tar member's header, at the least (POSIX.1-2001 pax)."""

_XATTR = Shape(Field(0, "r"), Field(1, "r"))
_FILE = Shape(
    Field(0, "r"),
    Field(1, "r"),
    Field(2, "q"),
    Field(3, "q"),
    Field(4, "r"),
    Field(5, "q"),
    Field(6, "I"),
    Field(7, "I"),
    Field(8, "r"),
    Field(9, "r"),
    Field(10, "r"),
    Field(11, "q"),
    Field(12, "q"),
    Field(13, "r"),
)
_TOC = Shape(Field(0, "r"))
_COMPRESSION = Shape(Field(1, "i"), Field(2, "r"), Field(3, "r"), Field(0, "b", Compression.GZIP))
_ZTOC = Shape(Field(0, "r"), Field(1, "r"), Field(4, "r"), Field(2, "q"), Field(3, "q"), Field(5, "r"))

_TYPES: Final = {kind.value.encode(): kind for kind in FileType}
_COMPRESSIONS: Final = {kind.value: kind for kind in Compression}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)
def _shared_text(data: bytes) -> str:
    return _text(data)


def _owner(data: bytes) -> str:
    return _shared_text(data) if len(data) <= _MAX_WORD_BYTES else _text(data)


def write_ztoc(ztoc: Ztoc) -> bytes:
    """Encode a zTOC, byte for byte as `soci` does for the same values.

    Raises:
        InvalidInputError: A value does not fit its field.
    """
    writer = Writer()
    version, tool = writer.string(_bytes(ztoc.version)), writer.string(_bytes(ztoc.build_tool))
    files = [_write_file(writer, entry) for entry in reversed(ztoc.files)]
    toc = writer.table(_TOC, [writer.reference_vector(files[::-1])])
    checkpoints = writer.byte_vector(ztoc.checkpoints)
    digests = writer.reference_vector([writer.string(digest.encode()) for digest in ztoc.span_digests])
    compression = writer.table(_COMPRESSION, [ztoc.max_span_id, digests, checkpoints, ztoc.compression])
    sizes = [ztoc.compressed_size, ztoc.uncompressed_size]
    return writer.finish(writer.table(_ZTOC, [version, tool, toc, *sizes, compression]))


def _write_file(writer: Writer, entry: FileMetadata) -> int:
    texts = (entry.name, entry.type, entry.linkname, entry.uname, entry.gname)
    strings = writer.strings([*map(_bytes, texts), format_time(entry.modified)])
    name, kind, link, uname, gname, modified = strings
    xattrs = writer.reference_vector([_write_record(writer, key, value) for key, value in entry.pax])
    _, _, offset, size, _, mode, uid, gid, _, _, _, major, minor, _ = entry
    values = (name, kind, offset, size, link, mode, uid, gid, uname, gname, modified, major, minor, xattrs)
    return writer.table(_FILE, values)


def _write_record(writer: Writer, key: str, value: bytes) -> int:
    return writer.table(_XATTR, writer.strings([_bytes(key), value]))


def read_ztoc(data: bytes | memoryview) -> Ztoc:
    """Decode and check a zTOC. `checkpoints` stays a view of `data`.

    Raises:
        InvalidInputError: It is malformed, or its spans or files do not fit together.
    """
    reader = Reader(data, "the zTOC")
    if len(reader.data) > MAX_ZTOC_BYTES:
        raise reader.wrong(f"it has {len(reader.data)} bytes, more than {MAX_ZTOC_BYTES}")
    version, tool, toc, compressed_size, uncompressed_size, at = reader.table(_ZTOC, reader.root())
    if not toc or not at:
        raise reader.wrong("it has no table of contents or no compression info")
    max_span_id, digests, checkpoints, algorithm = reader.table(_COMPRESSION, at)
    if algorithm not in _COMPRESSIONS:
        raise reader.wrong(f"compression {algorithm} is unknown")
    ztoc = Ztoc(
        version=_text(reader.string(version)),
        build_tool=_text(reader.string(tool)),
        compressed_size=compressed_size,
        uncompressed_size=uncompressed_size,
        files=tuple(_read_files(reader, toc, uncompressed_size)),
        compression=_COMPRESSIONS[algorithm],
        max_span_id=max_span_id,
        span_digests=tuple(_text(reader.string(digest)) for digest in reader.references(digests, MAX_SPANS)),
        checkpoints=reader.view(checkpoints),
    )
    span_table(ztoc)
    return ztoc


def _read_files(reader: Reader, toc: int, uncompressed_size: int) -> Iterator[FileMetadata]:
    before = 0
    for position in reader.references(reader.table(_TOC, toc)[0], MAX_FILES):
        entry = _read_file(reader, position)
        end = entry.offset + (entry.size if entry.type is FileType.REGULAR else 0)
        # Each member has a header of its own before its data: members in order cannot overlap.
        if entry.size < 0 or not before + _HEADER_BYTES <= entry.offset <= end <= uncompressed_size:
            raise reader.wrong(f"the data of {entry.name[:200]!r} lies outside the layer or in another member")
        before = end
        yield entry


def _read_file(reader: Reader, position: int) -> FileMetadata:
    fields = reader.table(_FILE, position)
    name_at, kind_at, offset, size, link_at, mode, uid, gid, uname_at, gname_at, modified_at, major, minor, pax_at = (
        fields
    )
    string = reader.string
    name, link, uname, gname = string(name_at), string(link_at), string(uname_at), string(gname_at)
    word, time = string(kind_at), string(modified_at)
    kind, modified = _TYPES.get(word), parse_time(time) if len(time) <= _MAX_WORD_BYTES else None
    if kind is None or modified is None:
        raise reader.wrong(f"the type or the time of {name[:200]!r} is unknown")
    if problem := problem_with(name, kind, link):
        raise reader.wrong(f"it lists {name[:200]!r}: {problem}")
    pax = _read_pax(reader, pax_at) if pax_at else ()
    owner = (mode, uid, gid, _owner(uname), _owner(gname))
    return FileMetadata(_text(name), kind, offset, size, _text(link), *owner, modified, major, minor, pax)


def _read_pax(reader: Reader, position: int) -> tuple[tuple[str, bytes], ...]:
    pairs = [reader.table(_XATTR, entry) for entry in reader.references(position, _MAX_RECORDS)]
    records = {_text(reader.string(key)): reader.string(value) for key, value in pairs}
    return tuple(sorted(records.items(), key=lambda record: _bytes(record[0])))
