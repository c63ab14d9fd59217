"""A layer's spans on this device: what a zTOC says, with windows that are unpacked when they are used."""

import random
import tarfile
from pathlib import Path

import pytest

from edge.errors import StoreError
from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import SpanTable, span_table
from edge.images.soci.spans import inflate_span
from edge.images.soci.values import Compression
from edge.images.span_file import open_span_file, write_span_file
from tests.images.soci.layers import deflate, member, pieces, tar, text


def _table(compression: Compression = Compression.GZIP) -> tuple[SpanTable, bytes, bytes]:
    whole = tar(tarfile.PAX_FORMAT, (member("file"), text(5, 600_000)), padded=False)
    blob = deflate(whole, 6) if compression is Compression.GZIP else whole
    return span_table(build_layer_index(pieces(blob), compression, span_size=64 << 10).ztoc), blob, whole


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans"


@pytest.mark.parametrize("compression", Compression)
def test_what_was_kept_is_what_is_opened(path: Path, compression: Compression) -> None:
    table, blob, whole = _table(compression)
    write_span_file(path, table)
    found = open_span_file(path)
    assert (found.compression, found.spans) == (table.compression, table.spans)
    for span in found.spans:
        data = inflate_span(found, span, blob[span.compressed_start : span.compressed_end])
        assert data == whole[span.uncompressed_start : span.uncompressed_end]


def test_windows_are_kept_compressed(path: Path) -> None:
    table, _, _ = _table()
    write_span_file(path, table)
    assert path.stat().st_size < sum(len(window) for window in table.windows) * 0.8
    assert list(open_span_file(path).windows) == [bytes(window) for window in table.windows]


@pytest.mark.parametrize("spoilt", [b"", b"EDGESPN1", b"EDGESPN2" + bytes(40), b"x" * 4096])
def test_another_file_is_damaged(path: Path, spoilt: bytes) -> None:
    path.write_bytes(spoilt)
    with pytest.raises(StoreError, match="damaged"):
        open_span_file(path)


def test_a_window_with_another_byte_is_found_out_when_it_is_used(path: Path) -> None:
    table, _, _ = _table()
    write_span_file(path, table)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    found = open_span_file(path)
    with pytest.raises(StoreError, match="damaged"):
        list(found.windows)


def test_damage_anywhere_never_crashes(path: Path) -> None:
    table, _, _ = _table()
    write_span_file(path, table)
    whole, chance = path.read_bytes(), random.Random(3)
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(1, len(data))))])
        try:
            list(open_span_file(path).windows)
        except StoreError:
            continue
