"""Byte for byte what the `soci` tool writes: its results are kept in `golden/`."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any, Final

import pytest

from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import span_table
from edge.images.soci.manifests import ZTOC_MEDIA_TYPE, Descriptor, IndexVersion, SociIndex, ZtocEntry, write_index
from edge.images.soci.values import Compression, FileMetadata, FileType, Ztoc
from edge.images.soci.ztoc import write_ztoc
from tests.images.soci.layers import pieces

GOLDEN: Final = Path(__file__).parent / "golden"
SAID: Final[dict[str, Any]] = json.loads((GOLDEN / "soci-0.15.0.json").read_text())
INFLATED: Final = {"pax.tar": "pax-blocks.tar.gz", "gnu.tar": "gnu-named.tar.gz"}


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def golden_layer(name: str) -> tuple[bytes, Compression]:
    if name in INFLATED:
        return gzip.decompress((GOLDEN / INFLATED[name]).read_bytes()), Compression.UNCOMPRESSED
    return (GOLDEN / name).read_bytes(), Compression.GZIP


@pytest.mark.parametrize("name", SAID["layers"])
def test_the_index_of_a_layer_has_the_digest_that_soci_gives_it(name: str) -> None:
    data, compression = golden_layer(name)
    said = SAID["layers"][name]
    found = build_layer_index(pieces(data), compression, span_size=SAID["spanSize"])
    ztoc = write_ztoc(found.ztoc)
    assert (found.layer_digest, len(ztoc), sha256(ztoc)) == (said["layer"], said["ztocBytes"], said["ztoc"])
    assert len(span_table(found.ztoc).spans) == said["spans"]
    suffix = "" if compression is Compression.UNCOMPRESSED else "+gzip"
    media_type = f"application/vnd.oci.image.layer.v1.tar{suffix}"
    blob = Descriptor(ZTOC_MEDIA_TYPE, said["ztoc"], said["ztocBytes"])
    entry = ZtocEntry(blob, found.layer_digest, media_type, SAID["spanSize"])
    assert sha256(write_index(SociIndex(IndexVersion.V2, (entry,)))) == said["index"]


def test_the_golden_layers_enter_bytes_at_every_bit() -> None:
    bits = set[int]()
    for name in SAID["layers"]:
        data, compression = golden_layer(name)
        table = span_table(build_layer_index(pieces(data), compression, span_size=SAID["spanSize"]).ztoc)
        bits |= {span.bits for span in table.spans}
    assert bits == {0, 1, 2, 3, 4, 5, 6, 7}


def test_a_ztoc_has_the_digest_that_socis_own_tests_expect() -> None:
    """awslabs/soci-snapshotter `ztoc/ztoc_test.go`, TestWriteZtoc."""
    year_one = -62_135_596_800 * 1_000_000_000
    nameless = FileMetadata("", FileType.REGULAR, 0, 0, modified=year_one)._replace(type="")  # type: ignore[arg-type]
    ztoc = Ztoc(
        compressed_size=2_000_000,
        uncompressed_size=2_500_000,
        files=(nameless, nameless),
        compression=Compression.GZIP,
        max_span_id=3,
        span_digests=(),
        checkpoints=bytes(1 << 16),
        build_tool="AWS SOCI CLI",
    )
    data = write_ztoc(ztoc)
    assert (len(data), sha256(data)) == (
        65_928,
        "sha256:eba28fdf50b1b57543f57dd051b2468c1d4f57b64d2006c75aa4de1d03e6c7ec",
    )
