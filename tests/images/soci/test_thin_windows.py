"""Windows without what their spans do not refer to: a tenth of the bytes, and the same files."""

import random
import tarfile
from collections.abc import Callable

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.builder import LayerIndex, build_layer_index
from edge.images.soci.checkpoints import WINDOW_BYTES, Checkpoint, read_gzip_checkpoints, span_table
from edge.images.soci.compact import ZtocUnpacker, pack_ztoc, unpack_ztoc
from edge.images.soci.spans import inflate_span
from edge.images.soci.thin_windows import thinned
from edge.images.soci.values import Compression
from edge.images.soci.ztoc import read_ztoc, write_ztoc
from tests.images.soci.layers import deflate, member, pieces, tar

SPAN = 64 << 10


def _layer(level: int = 6, size: int = 3 << 20) -> tuple[bytes, bytes]:
    noise = random.Random(7)
    words = [noise.randbytes(noise.randrange(3, 12)).hex().encode() for _ in range(4000)]
    content = b" ".join(noise.choice(words) for _ in range(size // 12))
    whole = tar(tarfile.PAX_FORMAT, (member("words", size=len(content)), content))
    return whole, deflate(whole, level)


def _indexed(packed: bytes, piece: int = 512 << 10, *, thin: bool = True) -> LayerIndex:
    return build_layer_index(pieces(packed, piece), Compression.GZIP, span_size=SPAN, thin=thin)


@pytest.mark.parametrize("level", [1, 6, 9])
def test_every_span_inflates_to_the_same_bytes(level: int) -> None:
    whole, packed = _layer(level)
    ztoc = _indexed(packed).ztoc
    table = span_table(ztoc)
    assert len(table.spans) > 10
    for span in table.spans:
        found = inflate_span(table, span, packed[span.compressed_start : span.compressed_end])
        assert found == whole[span.uncompressed_start : span.uncompressed_end]


def test_most_of_the_windows_is_left_out() -> None:
    _, packed = _layer()
    full, thin = (read_gzip_checkpoints(_indexed(packed, thin=thin).ztoc.checkpoints) for thin in (False, True))
    assert [point[:3] for point in full] == [point[:3] for point in thin], "the checkpoints are the same"
    kept = sum(WINDOW_BYTES - bytes(point.window).count(0) for point in thin)
    assert kept < sum(WINDOW_BYTES - bytes(point.window).count(0) for point in full) / 2
    for one, other in zip(full, thin, strict=True):
        assert all(b in (0, a) for a, b in zip(bytes(one.window), bytes(other.window), strict=True))


@pytest.mark.parametrize("piece", [1 << 10, 40_000, 1 << 20])
def test_the_sizes_of_the_pieces_that_come_make_no_difference(piece: int) -> None:
    _, packed = _layer(size=1 << 20)
    assert write_ztoc(_indexed(packed, piece).ztoc) == write_ztoc(_indexed(packed).ztoc)


def test_a_window_stays_whole_when_what_follows_is_not_known() -> None:
    window = bytes(range(1, 256)) * 129
    point = Checkpoint(100, 1000, 0, window[:WINDOW_BYTES])
    assert thinned(point, b"\x00") == point.window, "no deflate stream"
    assert thinned(point, b"") == point.window


def test_the_compact_form_is_the_same_ztoc_in_a_tenth_of_the_bytes() -> None:
    _, packed = _layer()
    thin, full = (write_ztoc(_indexed(packed, thin=thin).ztoc) for thin in (True, False))
    compact = pack_ztoc(thin)
    assert unpack_ztoc(compact) == thin
    assert compact == pack_ztoc(thin), "the same bytes each time"
    assert len(compact) < len(full) / 4
    assert read_ztoc(unpack_ztoc(compact)).files == read_ztoc(full).files


def test_a_compact_ztoc_is_unpacked_in_pieces() -> None:
    _, packed = _layer(size=1 << 20)
    ztoc = write_ztoc(_indexed(packed).ztoc)
    unpacker = ZtocUnpacker()
    assert b"".join(map(unpacker.feed, pieces(pack_ztoc(ztoc), 1000))) == ztoc
    unpacker.finish()


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-20], lambda data: data + data, lambda _: b"", lambda _: b"no gzip", lambda data: data[:-1]],
)
def test_a_damaged_one_is_refused(spoil: Callable[[bytes], bytes]) -> None:
    compact = pack_ztoc(b"z" * 10_000)
    with pytest.raises(InvalidInputError):
        unpack_ztoc(spoil(compact))


def test_a_bomb_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.images.soci.compact.MAX_ZTOC_BYTES", 1 << 20)
    with pytest.raises(InvalidInputError, match="larger than"):
        unpack_ztoc(pack_ztoc(bytes(2 << 20)))
