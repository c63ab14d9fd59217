"""Reads of a layer that has not arrived: what is asked of the source, what is waited for, what is shown."""

import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import ImagePullError, RegistryUnavailableError, TransientError
from edge.images.blob_cache import BlobCache
from edge.images.inflated import InflatedSpans
from edge.images.lazy_content import LazyContent
from edge.images.pulse import Pulse
from edge.images.soci.builder import build_layer_index
from edge.images.soci.checkpoints import span_table
from edge.images.soci.values import Compression
from edge.images.tree import Record
from tests.images.soci.layers import deflate, member, pieces, tar, text

SPAN = 64 << 10
TAR = tar(tarfile.PAX_FORMAT, (member("file"), text(11, 1_000_000)))
BLOB = deflate(TAR, 6)
TABLE = span_table(build_layer_index(pieces(BLOB), Compression.GZIP, span_size=SPAN).ztoc)


class Source:
    """A layer's bytes; a test may hold them back, spoil or refuse them."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.spoil = 0
        self.refuse: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        self.asked.append((offset, size))
        if self.refuse is not None:
            raise self.refuse
        data = bytearray(BLOB[offset : offset + size])
        if self.spoil:
            self.spoil -= 1
            data[len(data) // 2] ^= 0x10
        for at in range(0, size, 10_000):
            assert self.open.wait(30)
            yield bytes(data[at : at + 10_000])


class Rig:
    def __init__(self, folder: Path, seconds: float = 2.0) -> None:
        self.source, self.pulse, self.told = Source(), Pulse(), list[str]()
        self.folder = folder
        self.inflated = InflatedSpans(lambda: 1 << 20)
        self.content = LazyContent(
            "layer", table=TABLE, cache=BlobCache(folder, len(BLOB), len(TABLE.spans)), inflated=self.inflated,
            source=self.source, pulse=self.pulse, read_seconds=seconds, told=self.told.append,
        )  # fmt: skip

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.content.read(FILE, offset, size))


FILE = Record(*([0] * len(Record._fields)))._replace(offset=1000, size=len(TAR) - 1000)


@pytest.fixture
def here(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (70_000, 10), (60_000, 200_000), (990_000, 8000)])
def test_a_read_fetches_its_spans_in_one_request_and_returns_the_bytes(here: Rig, offset: int, size: int) -> None:
    assert here.read(offset, size) == TAR[1000 + offset : 1000 + offset + size]
    assert len(here.source.asked) == 1
    assert here.source.asked[0][1] <= sum(s.compressed_end - s.compressed_start for s in TABLE.covering(1000 + offset, 1000 + offset + size))  # fmt: skip  # noqa: E501


def test_what_was_fetched_is_not_fetched_again_even_after_a_restart(here: Rig) -> None:
    here.read(0, 100_000)
    asked = len(here.source.asked)
    here.inflated.put("filler", memoryview(bytes(2 << 20)))
    assert here.read(0, 100_000) == TAR[1000:101_000]
    again = Rig(here.folder)
    assert again.read(0, 100_000) == TAR[1000:101_000]
    assert (len(here.source.asked), again.source.asked) == (asked, [])


def test_wrong_bytes_are_asked_for_again_and_never_shown(here: Rig) -> None:
    here.source.spoil = 2
    assert here.read(0, 10) == TAR[1000:1010]
    assert len(here.source.asked) == 3
    assert "other bytes came" in here.told[0]


def test_a_source_that_is_away_is_waited_for_so_long_and_not_longer(tmp_path: Path) -> None:
    here = Rig(tmp_path, seconds=0.6)
    here.source.refuse = RegistryUnavailableError("away", reason="x")
    began = time.monotonic()
    with pytest.raises(TransientError, match="away"):
        here.read(0, 10)
    assert time.monotonic() - began < 10
    here.source.refuse = None
    assert here.read(0, 10) == TAR[1000:1010]


def test_a_refusal_is_an_error_at_once(here: Rig) -> None:
    here.source.refuse = ImagePullError("gone", reason="x")
    with pytest.raises(ImagePullError):
        here.read(0, 10)
    assert len(here.source.asked) == 1


def test_two_readers_of_one_span_cost_one_request(here: Rig) -> None:
    here.source.open.clear()
    found: list[bytes] = []
    readers = [threading.Thread(target=lambda: found.append(here.read(5, 10))) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.1)
    here.source.open.set()
    for reader in readers:
        reader.join(30)
    assert found == [TAR[1005:1015]] * 4
    assert len(here.source.asked) == 1


def test_a_span_is_claimed_by_nobody_after_a_failure(here: Rig) -> None:
    here.source.refuse = ImagePullError("gone", reason="x")
    with pytest.raises(ImagePullError):
        here.read(0, 300_000)
    here.source.refuse = None
    assert here.read(0, 300_000) == TAR[1000:301_000]


def test_where_asking_takes_long_what_lies_behind_comes_too(here: Rig) -> None:
    here.pulse.fetched(waited=0.04, count=1_000_000, took=0.2)
    here.read(0, 10)
    deadline = time.monotonic() + 10
    while here.content.here < 200_000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert here.source.asked[0][1] > 150_000
    asked = len(here.source.asked)
    assert here.read(100_000, 10) == TAR[101_000:101_010]
    assert len(here.source.asked) == asked


def test_the_background_takes_what_is_missing_and_lets_readers_pass(here: Rig) -> None:
    here.read(400_000, 10)
    position, runs = 0, 0
    while here.content.cache.missing:
        run = here.content.ahead(position, 100_000)
        here.content.fetch_ahead(run, lambda _: 0.0)
        position, runs = run[-1].number + 1, runs + 1
    assert here.content.here == len(BLOB)
    assert runs > 2
    assert here.read(0, 999_000) == TAR[1000:1_000_000]


def test_what_the_disk_has_lost_is_found_and_fetched_again(here: Rig) -> None:
    here.read(0, 300_000)
    with (here.folder / "blob").open("r+b") as file:
        file.write(bytes(50_000))
    again = Rig(here.folder)
    assert again.read(0, 300_000) == TAR[1000:301_000]
    assert again.source.asked
    found = again.content.damaged
    assert found > 0
    again.content.look_through()
    assert again.content.damaged == found, "what was fetched again is right"
    with (here.folder / "blob").open("r+b") as file:
        file.write(bytes(50_000))
    again.content.look_through()
    assert again.content.damaged > found, "found without a reader"
    assert again.content.cache.missing


def test_wanted_counts_what_was_read_and_not_what_came_besides(here: Rig) -> None:
    here.content.fetch_ahead(here.content.ahead(5, 100_000), lambda _: 0.0)
    assert here.content.wanted == 0
    here.read(0, 10)
    assert here.content.wanted == TABLE.spans[0].compressed_end - TABLE.spans[0].compressed_start
