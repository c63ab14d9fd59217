"""The parts of starts: zstd frames, places in layers, runs of spans, records of reads, pieces and their proof."""

import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.errors import InvalidInputError, StoreError
from edge.images.namespace import ServedLayer
from edge.images.soci.checkpoints import SpanTable
from edge.images.soci.values import Compression, FileMetadata, FileType, Span
from edge.images.starts import zstd
from edge.images.starts.ahead import RUN_BYTES, SpanRun, runs_of
from edge.images.starts.bundle import block_digests
from edge.images.starts.pieces import BLOCK, Bundles, Claims, load
from edge.images.starts.places import TarRange, place
from edge.images.starts.recorder import Recorder
from edge.images.tree import LayerTree, write_tree
from edge.model.start_profile import FileRange

NOISE = random.Random(1).randbytes(3 * BLOCK + 700)


# --- zstd


def test_what_is_packed_unpacks_piece_by_piece() -> None:
    data = NOISE + bytes(500_000) + NOISE
    packed = zstd.compress([data[:7], data[7:]], 3)
    assert len(packed) < len(NOISE) * 2
    with zstd.Unpacker(len(data)) as unpacker:
        parts = [part for at in range(0, len(packed), 1000) for part in unpacker.feed(packed[at : at + 1000])]
        unpacker.finish()
    assert b"".join(parts) == data
    assert len(parts) > 5


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda data: data[:-3], "breaks off"),
        (lambda data: data[:0], "breaks off"),
        (lambda data: data + b"\0", "bytes follow"),
        (lambda data: bytes(20) + data, "damaged"),
        (lambda data: data[:4] + b"\xff" * 10 + data[14:], "damaged"),
    ],
)
def test_a_frame_that_is_none_is_refused(spoil: object, why: str) -> None:
    assert callable(spoil)
    with pytest.raises(InvalidInputError, match=why):
        zstd.unpack(spoil(zstd.compress([NOISE], 3)), len(NOISE))


def test_a_frame_is_left_as_soon_as_it_is_too_large() -> None:
    bomb = zstd.compress((bytes(1 << 20) for _ in range(200)), 1)
    with zstd.Unpacker(1 << 20) as unpacker, pytest.raises(InvalidInputError, match="more than 1048576"):
        list(unpacker.feed(bomb))


# --- places


def _tree(path: Path, *entries: FileMetadata) -> LayerTree:
    write_tree(path, entries)
    return LayerTree(path)


def _file(name: str, offset: int, size: int) -> FileMetadata:
    return FileMetadata(name, FileType.REGULAR, offset, size)


def _folder(name: str) -> FileMetadata:
    return FileMetadata(name, FileType.DIRECTORY, 0, 0)


def _read(*paths: str) -> list[FileRange]:
    return [FileRange(path, 0, 1 << 30) for path in paths]


def test_the_uppermost_layer_s_file_counts_and_what_is_hidden_does_not(tmp_path: Path) -> None:
    names = ("kept", "gone", "over", "opaque/x", "folder/x")
    low = _tree(tmp_path / "low", *(_file(name, 1000 * number, 100) for number, name in enumerate(names, 1)))
    high = _tree(
        tmp_path / "high",
        _file("over", 7000, 50),
        _file(".wh.gone", 8000, 0),
        _folder("opaque"),
        _file("opaque/.wh..wh..opq", 8500, 0),
        _folder("folder"),
        FileMetadata("link", FileType.SYMLINK, 9000, 0, "kept"),
        FileMetadata("hard", FileType.HARDLINK, 9500, 0, "over"),
    )
    found = place([low, high], _read("hard", "kept", "gone", "opaque/x", "folder/x", "link", "folder", "no", "over"))
    assert found == (TarRange(1, 7000, 7050), TarRange(0, 1000, 1100), TarRange(0, 5000, 5100))


def test_ranges_are_cut_to_the_file_and_near_ones_joined(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "t", _file("a", 1000, 100))
    ranges = [FileRange("a", 0, 10), FileRange("a", 30, 4000), FileRange("a", 5000, 6000)]
    assert place([tree], ranges) == (TarRange(0, 1000, 1010), TarRange(0, 1030, 1100))
    assert place([tree], ranges, nearness=20) == (TarRange(0, 1000, 1100),)
    assert place([None], ranges) == ()


# --- runs


def _table(sizes: Sequence[int]) -> SpanTable:
    starts = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    spans = tuple(Span(n, starts[n], starts[n + 1], n * 100, n * 100 + 100, 0, "") for n in range(len(sizes)))
    return SpanTable(Compression.GZIP, spans, (b"",) * len(sizes), tuple(span.uncompressed_start for span in spans))


def test_spans_come_once_in_the_order_of_reading_and_neighbours_together() -> None:
    table = _table([1000] * 20)
    ranges = [TarRange(0, 950, 960), TarRange(1, 0, 10), TarRange(0, 300, 510), TarRange(0, 1050, 1060)]
    assert runs_of([table, None], ranges) == (SpanRun(0, 9, 10), SpanRun(0, 3, 5))


def test_a_run_ends_where_others_would_wait_too_long_for_theirs() -> None:
    found = runs_of([_table([RUN_BYTES // 4] * 12)], [TarRange(0, 0, 1200)])
    assert [(run.first, run.last) for run in found] == [(0, 3), (4, 7), (8, 11)]


def test_a_range_outside_the_layer_asks_for_nothing() -> None:
    assert runs_of([_table([10])], [TarRange(0, 100, 200), TarRange(0, 50, 1 << 60)]) == (SpanRun(0, 0, 0),)


# --- recording


def test_reads_are_recorded_in_order_until_the_end_and_not_beyond(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "t", _folder("d"), _file("d/a", 1000, 100), _file("b", 2000, 50))
    layer = ServedLayer(1, "layer", "LINK", (), tree, None)
    numbers = {tree.path(tree.record(number)): tree.record(number) for number in range(tree.count)}
    recorder = Recorder(lambda _: None)
    busy: list[bool] = []
    recorder.changed = lambda: busy.append(recorder.busy)
    recorder.saw(layer, numbers[b"b"], 0, 10)
    recorder.begin("image", {"layer": tree})
    for name, offset, size in ((b"b", 4, 4096), (b"d/a", 0, 8), (b"b", 0, 10)):
        recorder.saw(layer, numbers[name], offset, size)
    recorder.saw(ServedLayer(2, "other", "LINK", (), tree, None), numbers[b"b"], 0, 10)
    found = recorder.end("image")
    recorder.saw(layer, numbers[b"d/a"], 0, 100)
    assert found == (FileRange("b", 4, 50), FileRange("d/a", 0, 8), FileRange("b", 0, 4))
    assert recorder.end("image") == ()
    assert busy == [True, False, False]


def test_who_never_says_that_it_is_ready_is_recorded_so_long_and_not_longer(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "t", _file("b", 2000, 50))
    over = threading.Event()
    recorder = Recorder(lambda image_id: over.set() if image_id == "image" else None, seconds=0.05)
    recorder.begin("image", {"layer": tree})
    assert not over.wait(0.2), "nothing was read yet"
    recorder.saw(ServedLayer(1, "layer", "LINK", (), tree, None), tree.record(1), 0, 10)
    assert over.wait(20)


# --- pieces

RANGES = (TarRange(0, 90_000, 90_000 + BLOCK), TarRange(1, 0, BLOCK), TarRange(0, 100, 800 + BLOCK))


def _bundles(root: Path) -> Bundles:
    return Bundles(root, lambda _: None)


def _arrived(root: Path) -> Bundles:
    bundles = _bundles(root)
    payload = bundles.begin("image", ["low", "high"], RANGES, block_digests(NOISE))
    for at in range(0, len(NOISE), 1000):
        payload.take(NOISE[at : at + 1000])
    payload.check_whole()
    payload.end()
    return bundles


def _piece(bundles: Bundles, layer: str, start: int, end: int) -> bytes | None:
    pieces = bundles.pieces(layer)
    assert pieces is not None
    found = [pieces.payload.read(*part) for part in pieces.parts(start, end)]
    return b"".join(one for one in found if one is not None) if found and None not in found else None


def test_bytes_are_found_where_the_layer_has_them_and_no_others(tmp_path: Path) -> None:
    bundles = _arrived(tmp_path)
    for found in (bundles, _bundles(tmp_path)):
        assert _piece(found, "low", 90_010, 90_000 + BLOCK) == NOISE[10:BLOCK]
        assert _piece(found, "high", 0, BLOCK) == NOISE[BLOCK : 2 * BLOCK]
        assert _piece(found, "low", 100, 200) == NOISE[2 * BLOCK : 2 * BLOCK + 100]
        assert _piece(found, "low", 90, 200) is None
        assert _piece(found, "high", 0, BLOCK + 1) is None


def test_a_block_that_is_not_what_the_head_says_is_not_shown(tmp_path: Path) -> None:
    bundles = _bundles(tmp_path)
    payload = bundles.begin("image", ["low", "high"], RANGES, block_digests(NOISE))
    payload.take(NOISE[:BLOCK])
    with pytest.raises(InvalidInputError, match="another digest"):
        payload.take(bytes(BLOCK))
    assert _piece(bundles, "low", 90_000, 90_010) == NOISE[:10]
    assert _piece(bundles, "high", 0, 10) is None
    with pytest.raises(InvalidInputError, match="less than"):
        payload.check_whole()


def test_what_the_disk_lost_is_not_shown_after_a_restart(tmp_path: Path) -> None:
    _arrived(tmp_path)
    with (tmp_path / "bundles" / "image" / "payload").open("r+b") as file:
        file.seek(BLOCK + 5)
        file.write(b"\0\0\0\0\0\0\0\0")
    found = _bundles(tmp_path)
    assert _piece(found, "high", 0, 10) is None
    assert _piece(found, "low", 90_000, 90_010) == NOISE[:10]


@pytest.mark.parametrize("damage", [b"", b"EDGEMAP1", os.urandom(300)])
def test_a_damaged_map_costs_the_bundle_and_nothing_else(tmp_path: Path, damage: bytes) -> None:
    _arrived(tmp_path)
    folder = tmp_path / "bundles" / "image"
    (folder / "map").write_bytes(damage)
    with pytest.raises(StoreError):
        load(folder)
    assert _bundles(tmp_path).pieces("low") is None
    assert not folder.exists()


def test_whoever_waits_is_answered_when_its_bytes_come_or_will_not(tmp_path: Path) -> None:
    bundles = _bundles(tmp_path)
    payload = bundles.begin("image", ["low", "high"], RANGES, block_digests(NOISE))
    found: list[bytes | None] = []
    ends = [threading.Thread(target=lambda at=at: found.append(payload.wait(at, at + 10, 20))) for at in (0, BLOCK)]
    for end in ends:
        end.start()
    payload.take(NOISE[:BLOCK])
    ends[0].join(20)
    payload.end()
    ends[1].join(20)
    assert found == [NOISE[:10], None]


@pytest.mark.parametrize("wrong", [None, 5000, 4999 + BLOCK, 100, 4999, 1000])
def test_a_bundle_is_held_against_the_layer(tmp_path: Path, wrong: int | None) -> None:
    tar = bytearray(os.urandom(3 * BLOCK))
    places = [(100, 5000, 2 * BLOCK), (5000, 5000 + BLOCK, 0)]
    payload = bytearray(3 * BLOCK)
    for start, end, offset in places:
        payload[offset : offset + end - start] = tar[start:end]
    ranges = (TarRange(0, 5000, 5000 + BLOCK), TarRange(1, 0, BLOCK), TarRange(0, 100, 5000))
    told = bytes(payload[: 2 * BLOCK + 4900])
    bundles = _bundles(tmp_path)
    arriving = bundles.begin("image", ["low", "high"], ranges, block_digests(told))
    arriving.take(told)
    if wrong is not None:
        tar[wrong] ^= 1
    pieces = bundles.pieces("low")
    assert pieces is not None
    claims = Claims(pieces)
    for at in range(0, len(tar), 777):
        claims.take(at, bytes(tar[at : at + 777]))
    assert (claims.false is None) == (wrong is None)
