"""A zTOC comes from a registry: whatever is wrong with it is an error that says so."""

import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import (
    MAX_SPANS,
    WINDOW_BYTES,
    Checkpoint,
    read_gzip_checkpoints,
    span_table,
    write_gzip_checkpoints,
    write_tar_checkpoints,
)
from edge.images.soci.flatbuffer import Field, Reader, Shape, Writer
from edge.images.soci.values import Compression, FileMetadata, FileType, Ztoc
from edge.images.soci.ztoc import MAX_FILES, MAX_ZTOC_BYTES, read_ztoc, write_ztoc
from tests.images.soci.layers import deflate, member, pieces, tar, text

TAR = tar(tarfile.PAX_FORMAT, *[(member(f"f{i}"), text(i, 40_000)) for i in range(5)])
GZIP = build_layer_index(pieces(deflate(TAR, 6)), Compression.GZIP, span_size=1 << 15).ztoc
PLAIN = build_layer_index(pieces(TAR), Compression.UNCOMPRESSED, span_size=1 << 15).ztoc
POINTS = read_gzip_checkpoints(GZIP.checkpoints)
DIGEST = GZIP.span_digests[0]


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidInputError) as caught:
        read_ztoc(data)
    assert caught.value.hint
    return str(caught.value)


def with_file(number: int = 2, **changes: Any) -> Ztoc:
    files = list(GZIP.files)
    files[number] = files[number]._replace(**changes)
    return replace(GZIP, files=tuple(files))


def with_points(change: Callable[[list[Checkpoint]], object]) -> Ztoc:
    points = list(POINTS)
    change(points)
    digests = (*GZIP.span_digests, *[DIGEST] * len(points))[: len(points)]
    checkpoints = write_gzip_checkpoints(points, 1 << 15)
    return replace(GZIP, checkpoints=checkpoints, span_digests=digests, max_span_id=len(points) - 1)


def moved(number: int, **changes: Any) -> Ztoc:
    return with_points(lambda points: points.__setitem__(number, points[number]._replace(**changes)))


def test_the_older_layout_of_checkpoints_is_read() -> None:
    old = write_gzip_checkpoints(POINTS, 1 << 15)[: 12 + 17 + WINDOW_BYTES]
    old = old[:12] + write_gzip_checkpoints(POINTS, 1 << 15)[12 + 17 + WINDOW_BYTES :]
    ztoc = read_ztoc(write_ztoc(replace(GZIP, checkpoints=old)))
    assert span_table(ztoc).spans == span_table(GZIP).spans
    assert span_table(ztoc).windows == span_table(GZIP).windows


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\0",
        struct.pack("<iq", 255, 0),
        struct.pack("<iq", -1, 0),
        struct.pack("<iq", 1 << 30, 0),
        struct.pack("<iq", 2, 0) + bytes(100),
        write_gzip_checkpoints(POINTS, 1 << 15)[:-1],
        write_gzip_checkpoints(POINTS, 1 << 15) + bytes(1),
    ],
)
def test_checkpoints_that_fit_neither_layout_are_refused(blob: bytes) -> None:
    assert "spans are malformed" in refusal(write_ztoc(replace(GZIP, checkpoints=blob)))


@pytest.mark.parametrize(
    "ztoc",
    [
        moved(0, uncompressed=1),
        moved(0, uncompressed=-1),
        moved(0, compressed=0),
        moved(0, compressed=-10),
        moved(1, compressed=POINTS[0].compressed),
        moved(1, compressed=POINTS[2].compressed + 1),
        moved(1, compressed=-(1 << 63)),
        moved(1, uncompressed=POINTS[2].uncompressed + 1),
        moved(1, uncompressed=-1),
        moved(1, uncompressed=(1 << 63) - 1),
        moved(-1, compressed=GZIP.compressed_size),
        moved(-1, compressed=(1 << 63) - 1),
        moved(1, bits=8),
        moved(1, bits=255),
        with_points(list.clear),
        with_points(list.reverse),
        with_points(lambda points: points.insert(1, points[1])),
    ],
)
def test_checkpoints_out_of_order_or_out_of_the_layer_are_refused(ztoc: Ztoc) -> None:
    assert "spans are malformed" in refusal(write_ztoc(ztoc))


@pytest.mark.parametrize(
    "change",
    [
        {"max_span_id": 0},
        {"max_span_id": -1},
        {"max_span_id": (1 << 31) - 1},
        {"span_digests": GZIP.span_digests[:-1]},
        {"span_digests": (*GZIP.span_digests, DIGEST)},
        {"span_digests": ("sha256:" + "g" * 64, *GZIP.span_digests[1:])},
        {"span_digests": (DIGEST.upper(), *GZIP.span_digests[1:])},
        {"span_digests": (DIGEST + "\n", *GZIP.span_digests[1:])},
        {"span_digests": ("", *GZIP.span_digests[1:])},
        {"compressed_size": 0},
        {"compressed_size": -1},
        {"compressed_size": POINTS[-1].compressed},
        {"compressed_size": 1 << 62},
        {"uncompressed_size": (1 << 63) - 1},
        {"checkpoints": PLAIN.checkpoints},
        {"compression": Compression.UNCOMPRESSED},
    ],
)
def test_spans_that_do_not_fit_their_layer_are_refused(change: dict[str, Any]) -> None:
    assert refusal(write_ztoc(replace(GZIP, **change)))


@pytest.mark.parametrize("size", [-1, 0, 1, -(1 << 63)])
def test_files_outside_a_layer_of_that_size_are_refused(size: int) -> None:
    assert "outside the layer" in refusal(write_ztoc(replace(GZIP, uncompressed_size=size)))


@pytest.mark.parametrize(
    ("span_size", "size"),
    [(0, 1), (-1, 1), (1 << 15, 0), (1 << 15, -1), (1, 1 << 62), (1 << 62, 1 << 62), (1, MAX_SPANS + 1)],
)
def test_spans_of_an_uncompressed_layer_that_cannot_be_are_refused(span_size: int, size: int) -> None:
    assert refusal(write_ztoc(replace(PLAIN, checkpoints=write_tar_checkpoints(span_size, size))))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "../a"}, "leads out"),
        ({"name": "a/../../b"}, "leads out"),
        ({"name": "/a"}, "absolute"),
        ({"name": "a\0b"}, "NUL"),
        ({"name": ""}, "empty"),
        ({"type": FileType.HARDLINK, "linkname": "../../etc/shadow"}, "hard link"),
        ({"type": FileType.HARDLINK, "linkname": "/etc/shadow"}, "hard link"),
        ({"type": FileType.SYMLINK, "linkname": "a\0b"}, "NUL"),
        ({"offset": -1}, "outside"),
        ({"offset": 0}, "outside"),
        ({"offset": (1 << 63) - 1}, "outside"),
        ({"offset": GZIP.files[1].offset}, "another member"),
        ({"offset": GZIP.files[1].offset + GZIP.files[1].size}, "another member"),
        ({"size": -1}, "outside"),
        ({"size": (1 << 63) - 1}, "outside"),
        ({"size": GZIP.files[3].offset - GZIP.files[2].offset}, "another member"),
        ({"type": "socket"}, "type or the time"),
        ({"type": "x" * 1000}, "type or the time"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused(change: dict[str, Any], why: str) -> None:
    assert why in refusal(write_ztoc(with_file(**change)))


def test_a_directory_may_state_a_size_that_it_does_not_have() -> None:
    ztoc = with_file(type=FileType.DIRECTORY, size=1 << 40)
    assert read_ztoc(write_ztoc(ztoc)) == ztoc


@pytest.mark.parametrize("change", [{"uid": 1 << 32}, {"uid": -1}, {"size": 1 << 63}, {"mode": 1 << 63}])
def test_a_number_that_does_not_fit_its_field_is_not_written(change: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match="does not fit"):
        write_ztoc(with_file(**change))


def test_a_ztoc_larger_than_a_device_can_hold_is_refused_before_it_is_read() -> None:
    assert "more than" in refusal(bytes(MAX_ZTOC_BYTES + 1))


@pytest.mark.parametrize("size", range(0, 40, 3))
def test_a_few_bytes_are_no_ztoc(size: int) -> None:
    assert refusal(write_ztoc(GZIP)[:size])


def test_a_ztoc_that_breaks_off_is_refused() -> None:
    data = write_ztoc(replace(GZIP, files=GZIP.files[:1]))
    for end in (*range(8, len(data), 1009), len(data) - 8):
        assert refusal(data[:end])


FILE = Shape(*(Field(slot, code) for slot, code in enumerate("rrqqrqIIrrrqqr")))
XATTR = Shape(Field(0, "r"), Field(1, "r"))
TOC = Shape(Field(0, "r"))
COMPRESSION = Shape(Field(1, "i"), Field(2, "r"), Field(3, "r"))
ZTOC = Shape(Field(0, "r"), Field(1, "r"), Field(4, "r"), Field(2, "q"), Field(3, "q"), Field(5, "r"))


def no_digests(writer: Writer) -> int:
    return writer.reference_vector([])


def bomb(files: Callable[[Writer], int], digests: Callable[[Writer], int] = no_digests) -> bytes:
    """Write a zTOC whose parts are given as they lie in the buffer."""
    writer = Writer()
    toc = writer.table(TOC, [files(writer)])
    vector = digests(writer)
    checkpoints = writer.byte_vector(write_gzip_checkpoints(POINTS[:1], 1 << 15))
    compression = writer.table(COMPRESSION, [0, vector, checkpoints])
    return writer.finish(writer.table(ZTOC, [0, 0, toc, 100_000, 1 << 40, compression]))


def test_one_file_listed_without_end_is_refused() -> None:
    def files(writer: Writer) -> int:
        return writer.reference_vector([writer.table(FILE, [0] * 14)] * (MAX_FILES + 1))

    assert f"more than {MAX_FILES}" in refusal(bomb(files))


def test_a_long_string_used_by_many_files_is_refused() -> None:
    def files(writer: Writer) -> int:
        kind, time = writer.strings([b"reg", b"2020-01-01T00:00:00Z"])
        long = writer.string(b"x" * 1_000_000)
        made = [
            writer.table(FILE, [long, kind, 512 * (i + 1), 0, long, 0, 0, 0, long, long, time, 0, 0, 0])
            for i in range(1000)
        ]
        return writer.reference_vector(made)

    assert "over and over" in refusal(bomb(files))


@pytest.mark.parametrize("slot", [1, 10], ids=["type", "time"])
def test_a_type_or_a_time_that_is_a_long_string_is_refused(slot: int) -> None:
    def files(writer: Writer) -> int:
        name, kind, time = writer.strings([b"a", b"reg", b"2020-01-01T00:00:00Z"])
        values = [name, kind, 512, 0, 0, 0, 0, 0, 0, 0, time, 0, 0, 0]
        values[slot] = writer.string(b"2020-01-01T00:00:00." + b"0" * 1_000_000 + b"Z")
        return writer.reference_vector([writer.table(FILE, values)])

    assert "type or the time" in refusal(bomb(files))


def test_one_list_of_records_used_by_many_files_is_refused() -> None:
    def files(writer: Writer) -> int:
        kind, name, time = writer.strings([b"reg", b"a", b"2020-01-01T00:00:00Z"])
        pax = writer.reference_vector([writer.table(XATTR, [name, name])] * 60_000)
        made = [
            writer.table(FILE, [name, kind, 512 * (i + 1), 0, 0, 0, 0, 0, 0, 0, time, 0, 0, pax]) for i in range(1000)
        ]
        return writer.reference_vector(made)

    assert "over and over" in refusal(bomb(files))


def test_one_digest_for_more_spans_than_a_layer_has_is_refused() -> None:
    def digests(writer: Writer) -> int:
        return writer.reference_vector([writer.string(DIGEST.encode())] * (MAX_SPANS + 1))

    assert f"more than {MAX_SPANS}" in refusal(bomb(no_digests, digests))


def test_absent_fields_have_their_defaults() -> None:
    shape = Shape(Field(0, "q"), Field(1, "b", 1), Field(5, "r"))
    writer = Writer()
    reader = Reader(writer.finish(writer.table(shape, [0, 1, 0])), "it")
    assert reader.table(shape, reader.root()) == [0, 1, 0]
    assert reader.references(0, 10) == []
    assert reader.string(0) == b""


def test_files_that_share_an_owner_share_its_name() -> None:
    files = tuple(entry._replace(uname="jörg") for entry in GZIP.files)
    found: tuple[FileMetadata, ...] = read_ztoc(write_ztoc(replace(GZIP, files=files))).files
    assert len({id(entry.uname) for entry in found}) == 1
    assert found == files
