"""Windows without what their spans do not refer to: a tenth of the bytes, and the same files."""

import gzip
import random
import tarfile
import time
import zlib
from collections.abc import Callable

import pytest

from edge.errors import EdgeError, InvalidInputError
from edge.images.soci.builder import LayerIndex, LayerIndexer, build_layer_index
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


def _referred_to(packed: bytes, point: Checkpoint, places: list[int]) -> set[int]:
    """The slow truth: the places whose bytes, changed one by one, change what comes out."""

    def behind(window: bytes) -> bytes:
        return zlib.decompressobj(-15, zdict=window).decompress(packed[point.compressed :], WINDOW_BYTES)

    window = bytes(point.window)
    true = behind(window)
    changed = (window[:place] + bytes([window[place] ^ 0x55]) + window[place + 1 :] for place in places)
    return {place for place, one in zip(places, changed, strict=True) if behind(one) != true}


def test_exactly_what_the_span_refers_to_is_kept() -> None:
    """Whatever the bytes are: zeros that are referred to look like zeros that are not, so there are none."""
    noise = random.Random(5)
    content = b"".join(bytes([noise.randrange(1, 256)]) * noise.randrange(1, 9) for _ in range(12_000))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(content[:WINDOW_BYTES]) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = head + packer.compress(content[WINDOW_BYTES:]) + packer.flush()
    point = Checkpoint(len(head), WINDOW_BYTES, 0, content[:WINDOW_BYTES])
    places = noise.sample(range(WINDOW_BYTES), k=4000)
    wanted = _referred_to(packed, point, places)
    assert 100 < len(wanted) < len(places) - 100
    thin = thinned(point, packed[point.compressed :])
    assert {place for place in places if thin[place]} == wanted
    assert all(byte in (0, true) for byte, true in zip(thin, content, strict=False))


@pytest.mark.parametrize("few", [0, 1000])
def test_windows_are_thinned_the_same_here_and_beside(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, packed = _layer()
    wanted = write_ztoc(_indexed(packed).ztoc)
    monkeypatch.setattr("edge.images.soci.thinning._FEW", few)
    assert write_ztoc(_indexed(packed).ztoc) == wanted


def test_a_process_beside_that_ends_early_is_told_and_no_window_is_lost_silently() -> None:
    _, packed = _layer(size=8 << 20)
    with LayerIndexer(Compression.GZIP, span_size=SPAN, thin=True) as indexer:
        halves = list(pieces(packed, len(packed) // 2))
        indexer.feed(halves[0])
        _end_the_process_beside(indexer)
        with pytest.raises(EdgeError, match="ended with -9"):
            _feed_the_rest(indexer, halves[1:])


def _feed_the_rest(indexer: LayerIndexer, rest: list[bytes]) -> None:
    for piece in rest:
        indexer.feed(piece)
    indexer.finish()


def _end_the_process_beside(indexer: LayerIndexer) -> None:
    deadline = time.monotonic() + 10
    while indexer._thinner is None or indexer._thinner._child is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    indexer._thinner._child._process.kill()


def test_the_process_beside_ends_with_the_index() -> None:
    _, packed = _layer()
    with LayerIndexer(Compression.GZIP, span_size=SPAN, thin=True) as indexer:
        indexer.feed(packed)
        indexer.finish()
        assert indexer._thinner is not None
        assert indexer._thinner._child is not None
        process = indexer._thinner._child._process
    assert process.returncode is not None


@pytest.mark.parametrize("size", [0, 1, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5 << 20])
def test_a_compact_form_of_several_parts_is_one_gzip_member_for_everybody(size: int) -> None:
    noise = random.Random(size)
    data = noise.randbytes(size // 4).ljust(size, b"z")
    compact = pack_ztoc(data)
    assert gzip.decompress(compact) == unpack_ztoc(compact) == data


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
