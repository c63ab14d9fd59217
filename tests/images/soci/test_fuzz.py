"""Any bytes are either understood or refused with this project's own error."""

import contextlib
import hashlib
import json
import tarfile
from dataclasses import replace
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InvalidInputError
from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import span_table
from edge.images.soci.manifests import annotate_manifest, bind_image_index, index_digest_of, read_index, referrers
from edge.images.soci.prefetch import read_prefetch
from edge.images.soci.spans import inflate_span
from edge.images.soci.values import Compression
from edge.images.soci.ztoc import read_ztoc, write_ztoc
from tests.images.soci.layers import deflate, member, pieces, tar, text

PAX: Final = {"SCHILY.xattr.user.a": "b"}
TAR: Final = tar(
    tarfile.PAX_FORMAT,
    *[(member(f"f{i}", pax_headers=PAX), text(i, 30_000)) for i in range(3)],
    (member("d" * 150, tarfile.SYMTYPE, linkname="t" * 150), b""),
)
LAYERS: Final = {Compression.GZIP: deflate(TAR, 6), Compression.UNCOMPRESSED: TAR}
ZTOCS: Final = {
    kind: write_ztoc(build_layer_index(pieces(layer), kind, span_size=1 << 15).ztoc) for kind, layer in LAYERS.items()
}
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["config", "layers", "manifests", "subject", "annotations", "mediaType", "digest", "size"])
            | st.sampled_from(["version", "prefetch_spans", "start_span", "end_span", "priority", "platform"])
            | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


def flips(size: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Choose some places in so many bytes, more often where the structure is: at both ends."""
    ends = st.integers(0, min(400, size - 1)) | st.integers(max(0, size - 4000), size - 1)
    return st.lists(st.tuples(ends | st.integers(0, size - 1), st.integers(0, 255)), min_size=1, max_size=6)


def changed(data: bytes, places: list[tuple[int, int]]) -> bytes:
    made = bytearray(data)
    for at, value in places:
        made[at] = value
    return bytes(made)


@given(st.binary(max_size=400))
def test_any_bytes_as_a_ztoc(data: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        read_ztoc(data)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.sampled_from(Compression))
def test_a_ztoc_with_some_bytes_changed_is_consistent_or_refused(data: st.DataObject, kind: Compression) -> None:
    whole = ZTOCS[kind]
    try:
        ztoc = read_ztoc(changed(whole, data.draw(flips(len(whole)))))
    except InvalidInputError:
        return
    table = span_table(ztoc)
    layer = LAYERS[kind]
    for span in table.spans:
        stored = layer[span.compressed_start : span.compressed_end]
        with contextlib.suppress(InvalidInputError):
            assert len(inflate_span(table, span, stored)) == span.size
    for entry in ztoc.files:
        assert 0 <= entry.offset <= ztoc.uncompressed_size
        assert ".." not in entry.name.split("/")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_checkpoint_with_other_numbers_is_refused_or_inflates_to_what_it_states(data: st.DataObject) -> None:
    ztoc = read_ztoc(ZTOCS[Compression.GZIP])
    checkpoints = changed(bytes(ztoc.checkpoints), data.draw(flips(29)))
    with contextlib.suppress(InvalidInputError):
        table = span_table(replace(ztoc, checkpoints=checkpoints))
        span = table.spans[0]
        stored = LAYERS[Compression.GZIP][span.compressed_start : span.compressed_end]
        honest = span._replace(digest=f"sha256:{hashlib.sha256(stored).hexdigest()}")
        assert len(inflate_span(table, honest, stored)) == span.size


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(Compression))
def test_a_layer_with_some_bytes_changed_is_indexed_or_refused(data: st.DataObject, kind: Compression) -> None:
    layer = LAYERS[kind]
    with contextlib.suppress(InvalidInputError):
        found = build_layer_index(pieces(changed(layer, data.draw(flips(len(layer))))), kind, span_size=1 << 15)
        assert read_ztoc(write_ztoc(found.ztoc)) == found.ztoc


@given(st.binary(max_size=3000), st.sampled_from(Compression))
def test_any_bytes_as_a_layer(data: bytes, kind: Compression) -> None:
    with contextlib.suppress(InvalidInputError):
        build_layer_index([data], kind)


@settings(max_examples=300, deadline=None)
@given(JSON.map(lambda document: json.dumps(document).encode()) | st.binary(max_size=200))
def test_any_json_as_any_document(data: bytes) -> None:
    for read in (read_index, referrers, index_digest_of, lambda data: read_prefetch(data, 10)):
        with contextlib.suppress(InvalidInputError):
            read(data)
    with contextlib.suppress(InvalidInputError):
        annotate_manifest(data, None)
    with contextlib.suppress(InvalidInputError):
        bind_image_index(data, [], {})
