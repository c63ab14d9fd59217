import gzip
import hashlib
import io
import tarfile

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.builder import LayerIndexer, build_layer_index
from edge.images.soci.checkpoints import MAX_SPANS, span_table
from edge.images.soci.spans import inflate_span
from edge.images.soci.values import Compression, Ztoc
from edge.images.soci.ztoc import read_ztoc, write_ztoc
from tests.images.soci.layers import deflate, layers, member, members, pieces, tar, text

SPAN = 1 << 16
LAYERS = dict(layers())
EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)


def compression_of(name: str) -> Compression:
    return Compression.UNCOMPRESSED if name.endswith("-plain") else Compression.GZIP


def truth(name: str) -> bytes:
    return LAYERS[name] if name.endswith("-plain") else gzip.decompress(LAYERS[name])


def indexed(name: str, span_size: int = SPAN) -> Ztoc:
    return build_layer_index(pieces(LAYERS[name]), compression_of(name), span_size=span_size).ztoc


def feed(indexer: LayerIndexer, layer: bytes, fed: list[bytes] | None = None) -> None:
    for piece in pieces(layer):
        indexer.feed(piece)
        if fed is not None:
            fed.append(piece)


@EVERY_LAYER
def test_every_span_inflates_to_the_truth(name: str) -> None:
    expected, layer = truth(name), LAYERS[name]
    table = span_table(read_ztoc(write_ztoc(indexed(name))))
    at = 0
    for span in table.spans:
        found = inflate_span(table, span, layer[span.compressed_start : span.compressed_end])
        assert span.uncompressed_start == at
        assert found == expected[at : at + span.size]
        at = span.uncompressed_end
    assert not expected[at:].strip(b"\0"), "only padding may lie behind the last span"


@EVERY_LAYER
def test_what_is_written_is_read_again(name: str) -> None:
    ztoc = indexed(name)
    assert read_ztoc(write_ztoc(ztoc)) == ztoc


@EVERY_LAYER
def test_one_pass_gives_the_digest_of_the_layer_and_its_diff_id(name: str) -> None:
    found = build_layer_index(pieces(LAYERS[name]), compression_of(name), span_size=SPAN)
    assert found.layer_digest == f"sha256:{hashlib.sha256(LAYERS[name]).hexdigest()}"
    assert found.diff_id == f"sha256:{hashlib.sha256(truth(name)).hexdigest()}"
    assert found.uncompressed_size == len(truth(name))
    assert found.ztoc.compressed_size == len(LAYERS[name])


@EVERY_LAYER
def test_each_file_lies_where_the_table_of_contents_says(name: str) -> None:
    data, ztoc = truth(name), indexed(name)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(entry.offset_data, entry.size) for entry in archive if entry.isreg()]
    assert [(entry.offset, entry.size) for entry in ztoc.files if entry.type == "reg"] == expected


@pytest.mark.parametrize("size", [1, 7, 511, 4096, 1 << 30])
@pytest.mark.parametrize("compression", Compression)
def test_the_pieces_in_which_a_layer_arrives_do_not_matter(size: int, compression: Compression) -> None:
    data = tar(tarfile.PAX_FORMAT, (member("a" * 200), text(1, 90_000)), (member("b"), text(2, 9_000)))
    layer = data if compression is Compression.UNCOMPRESSED else members(data, 40_000)
    whole = build_layer_index([layer], compression, span_size=1 << 15)
    assert build_layer_index(pieces(layer, size), compression, span_size=1 << 15) == whole


def test_the_output_is_handed_on_in_order_with_its_members_known() -> None:
    layer = LAYERS["large-6"]
    seen = bytearray()
    known = list[int]()

    def take(at: int, view: memoryview) -> None:
        assert at == len(seen)
        seen.extend(view)
        known.append(len(indexer.files))

    with LayerIndexer(Compression.GZIP, on_output=take) as indexer:
        feed(indexer, layer)
        indexer.finish()
    assert seen == gzip.decompress(layer)
    assert known[0] == 1
    assert known[-1] == 2


def test_an_error_of_whoever_takes_the_output_ends_the_work() -> None:
    def refuse(at: int, view: memoryview) -> None:
        raise OSError(28, f"no space for {len(view)} bytes at {at}")

    with LayerIndexer(Compression.GZIP, on_output=refuse) as indexer, pytest.raises(OSError, match="no space"):
        feed(indexer, LAYERS["large-6"])


def test_a_layer_that_breaks_off_is_refused_wherever_it_does() -> None:
    data = tar(tarfile.GNU_FORMAT, (member("a"), text(1, 50_000)), padded=False)
    for layer, compression in ((deflate(data, 6), Compression.GZIP), (data, Compression.UNCOMPRESSED)):
        whole = build_layer_index([layer], compression)
        for end in (*range(1, 600, 7), *range(600, len(layer) - 1024, 997)):
            with pytest.raises(InvalidInputError):
                build_layer_index([layer[:end]], compression)
        assert whole.ztoc.files


@pytest.mark.parametrize("compression", Compression)
def test_no_bytes_are_no_layer(compression: Compression) -> None:
    with pytest.raises(InvalidInputError):
        build_layer_index([], compression)


def test_a_damaged_gzip_stream_is_refused() -> None:
    layer = bytearray(LAYERS["pax-6"])
    layer[len(layer) // 2] ^= 0xFF
    with pytest.raises(InvalidInputError):
        build_layer_index(pieces(bytes(layer)), Compression.GZIP)


@pytest.mark.parametrize("at", [-1, -5], ids=["length", "checksum"])
def test_a_gzip_member_with_a_wrong_trailer_is_refused(at: int) -> None:
    layer = bytearray(deflate(tar(tarfile.GNU_FORMAT, (member("a"), text(1, 9000))), 1))
    layer[at] ^= 1
    for size in (1 << 20, 3):
        with pytest.raises(InvalidInputError, match="damaged"):
            build_layer_index(pieces(bytes(layer), size), Compression.GZIP)


def test_bytes_after_the_last_gzip_member_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="damaged"):
        build_layer_index([LAYERS["pax-6"] + bytes(10)], Compression.GZIP)


@pytest.mark.parametrize("name", ["large-6", "large-plain"])
def test_a_layer_larger_than_the_limit_is_refused_before_it_is_read_whole(name: str) -> None:
    asked = list[bytes]()
    with (
        LayerIndexer(compression_of(name), limit=5_000_000) as indexer,
        pytest.raises(InvalidInputError, match=r"more than|larger than"),
    ):
        feed(indexer, LAYERS[name], asked)
    assert sum(map(len, asked)) < len(LAYERS[name])


def test_a_gzip_bomb_is_refused_at_the_limit() -> None:
    bomb = deflate(bytes(64 << 20), 9)
    with (
        LayerIndexer(Compression.GZIP, limit=8 << 20) as indexer,
        pytest.raises(InvalidInputError, match="inflates to more"),
    ):
        indexer.feed(bomb)


def test_more_spans_than_a_device_can_hold_are_refused() -> None:
    empty_blocks = b"".join((deflate(b"", 0)[:10], b"\0\0\0\xff\xff" * (MAX_SPANS + 1)))
    with pytest.raises(InvalidInputError, match="more than") as caught:
        build_layer_index([empty_blocks], Compression.GZIP)
    assert "larger span size" in caught.value.hint


@pytest.mark.parametrize("span_size", [0, -1, 1 << 14, 1 << 40])
def test_an_impossible_span_size_is_refused(span_size: int) -> None:
    with pytest.raises(InvalidInputError, match="span size"):
        build_layer_index([], Compression.GZIP, span_size=span_size)
