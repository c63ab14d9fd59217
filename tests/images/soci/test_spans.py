import hashlib
import tarfile
import zlib
from dataclasses import replace

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import SpanTable, span_table
from edge.images.soci.spans import inflate_span
from edge.images.soci.values import Compression, Ztoc
from tests.images.soci.layers import deflate, member, members, noise, pieces, tar, text

TAR = tar(tarfile.PAX_FORMAT, (member("a"), text(1, 600_000)), (member("b"), noise(2, 50_000)))
LAYER = deflate(TAR, 6)


def ztoc_of(layer: bytes = LAYER) -> Ztoc:
    return build_layer_index(pieces(layer), Compression.GZIP, span_size=1 << 16).ztoc


def claiming(table: SpanTable, number: int, stored: bytes, size: int) -> SpanTable:
    """Make a table in which a span has other bytes, and says that they are right."""
    span = table.spans[number]._replace(
        compressed_end=table.spans[number].compressed_start + len(stored),
        uncompressed_end=table.spans[number].uncompressed_start + size,
        digest=f"sha256:{hashlib.sha256(stored).hexdigest()}",
    )
    return replace(table, spans=(*table.spans[:number], span, *table.spans[number + 1 :]))


def test_a_span_with_one_wrong_bit_is_refused() -> None:
    table = span_table(ztoc_of())
    span = table.spans[3]
    stored = bytearray(LAYER[span.compressed_start : span.compressed_end])
    stored[100] ^= 1
    with pytest.raises(InvalidInputError, match="digest"):
        inflate_span(table, span, bytes(stored))


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_span_of_the_wrong_length_is_refused(extra: int) -> None:
    table = span_table(ztoc_of())
    span = table.spans[3]
    with pytest.raises(InvalidInputError, match="bytes, the zTOC says"):
        inflate_span(table, span, LAYER[span.compressed_start : span.compressed_end + extra])


def test_an_empty_answer_is_refused() -> None:
    table = span_table(ztoc_of())
    for span in table.spans:
        with pytest.raises(InvalidInputError):
            inflate_span(table, span, b"")


def test_a_span_that_inflates_without_end_gives_what_was_stated_and_no_more() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    stored = bomb.compress(bytes(100 << 20)) + bomb.flush()
    table = claiming(span_table(ztoc_of()), 0, stored, 1000)
    assert inflate_span(table, table.spans[0], stored) == bytes(1000)


def test_a_span_that_inflates_to_less_is_refused() -> None:
    maker = zlib.compressobj(9, zlib.DEFLATED, -15)
    stored = maker.compress(b"short") + maker.flush()
    table = claiming(span_table(ztoc_of()), 0, stored, 5000)
    with pytest.raises(InvalidInputError, match="inflates to 5 bytes"):
        inflate_span(table, table.spans[0], stored)


def test_a_span_of_noise_is_refused_though_its_digest_is_right() -> None:
    stored = b"\xff" + noise(1, 5000)
    table = claiming(span_table(ztoc_of()), 0, stored, 5000)
    with pytest.raises(InvalidInputError, match="damaged"):
        inflate_span(table, table.spans[0], stored)


def test_members_without_content_end_a_span_that_promises_more() -> None:
    stored = deflate(b"x", 6)[10:] + deflate(b"", 6) * 1000
    table = claiming(span_table(ztoc_of()), 0, stored, 2)
    with pytest.raises(InvalidInputError, match="inflates to 1 bytes"):
        inflate_span(table, table.spans[0], stored)


def test_a_member_header_may_lie_across_spans() -> None:
    layer = members(TAR, 7_001)
    table = span_table(ztoc_of(layer))
    assert len(table.spans) > 5
    found = [inflate_span(table, span, layer[span.compressed_start : span.compressed_end]) for span in table.spans]
    assert b"".join(found) == TAR[: table.spans[-1].uncompressed_end]


def test_a_byte_is_found_in_its_span() -> None:
    table = span_table(ztoc_of())
    for span in table.spans:
        assert table.at(span.uncompressed_start) == table.at(span.uncompressed_end - 1) == span


@pytest.mark.parametrize("offset", [-1, 1 << 40])
def test_a_byte_outside_the_layer_has_no_span(offset: int) -> None:
    with pytest.raises(InvalidInputError, match="no byte"):
        span_table(ztoc_of()).at(offset)


def test_a_range_is_covered_by_its_spans_and_none_beside() -> None:
    table = span_table(ztoc_of())
    second, third = table.spans[1], table.spans[2]
    start, middle, end = second.uncompressed_start, second.uncompressed_end, third.uncompressed_end
    assert table.covering(start, middle) == (second,)
    assert table.covering(middle - 1, end) == (second, third)
    assert table.covering(middle, middle) == ()
