"""Reads of a layer whose unchanged chunks an older layer has: what is fetched, and what is shown."""

import tarfile
from pathlib import Path

import pytest

from edge.errors import RegistryUnavailableError
from tests.images.delta.recipes import Update
from tests.images.soci.layers import deflate, member, members, noise, tar, text

OLD = {f"{number:02}": text(number, 100_000) for number in range(30)} | {"large": noise(7, 900_000)}
NEW = OLD | {
    "05": text(95, 100_000),
    "large": OLD["large"][:400_000] + b"inserted" + OLD["large"][400_000:],
    "new": text(96, 30_000),
    "moved": OLD["11"],
    # As a name that is not UTF-8 is kept.
    "\udcff": text(97, 1000),
}
del NEW["11"]


def _tar(files: dict[str, bytes]) -> bytes:
    return tar(tarfile.GNU_FORMAT, *((member(name), data) for name, data in files.items()))


OLD_TAR, NEW_TAR = _tar(OLD), _tar(NEW)
BLOB = deflate(NEW_TAR, 6)


@pytest.fixture
def update(tmp_path: Path) -> Update:
    return Update(tmp_path, OLD_TAR, NEW_TAR, BLOB)


def test_what_did_not_change_is_not_fetched(update: Update) -> None:
    for name in ("04", "06", "29", "moved"):
        assert update.read(name) == NEW[name]
    assert update.source.asked == []


def test_a_changed_file_is_fetched_and_little_else(update: Update) -> None:
    assert update.read("05") == NEW["05"]
    changed = len(deflate(NEW["05"], 6))
    assert changed < update.fetched < changed + 50_000


def test_of_a_file_that_grew_in_the_middle_the_chunks_around_are_fetched(update: Update) -> None:
    assert update.read("large") == NEW["large"]
    assert update.fetched < 600_000


def test_every_file_is_what_it_is_and_a_second_time_nothing_is_fetched(update: Update) -> None:
    update.check({name: NEW[name] for name in NEW if name.isascii()})
    asked = len(update.source.asked)
    again = update.open()
    assert update.read("05", again) == NEW["05"]
    assert len(update.source.asked) == asked


@pytest.mark.parametrize("kind", ["gzip", "members", "plain"])
def test_without_the_older_layer_everything_is_fetched_once(tmp_path: Path, kind: str) -> None:
    blob = {"gzip": BLOB, "members": members(NEW_TAR, 300_000), "plain": NEW_TAR}[kind]
    update = Update(tmp_path, OLD_TAR, NEW_TAR, blob, gzip=kind != "plain")
    assert update.read("05") == NEW["05"]
    update.older.clear()
    # From behind: nothing of what lies before a file is here.
    for name in reversed([name for name in NEW if name.isascii()]):
        assert update.read(name) == NEW[name]
    assert update.fetched < 1.2 * len(blob)


def test_a_file_that_was_changed_on_the_disk_is_fetched(update: Update) -> None:
    spoilt = bytearray(update.old.tar)
    at = update.old.tar.index(OLD["08"])
    spoilt[at + 70_000] ^= 1
    update.old.tar = bytes(spoilt)
    assert update.read("08") == NEW["08"]
    assert update.source.asked


def test_one_that_is_changed_after_it_was_found_is_fetched_too(update: Update) -> None:
    assert all(update.content.settle(number) for number in update.content.table.covering(0, 1000))
    update.old.tar = bytes(len(update.old.tar))
    damaged = update.content.damaged
    update.content.look_through()
    assert update.content.damaged > damaged
    assert update.read("00") == NEW["00"]


def test_wrong_bytes_are_asked_for_again_and_never_shown(update: Update) -> None:
    update.source.spoil = 2
    assert update.read("05") == NEW["05"]
    assert any("other bytes came" in one for one in update.told)


def test_when_they_are_always_wrong_it_is_the_recipe_that_is_false(update: Update) -> None:
    update.source.spoil = 1000
    content = update.open(read_seconds=60)
    with pytest.raises(RegistryUnavailableError, match="other bytes"):
        update.read("05", content)
    assert content.false
    assert update.read("04", content) == NEW["04"]


def test_a_chunk_that_the_disk_has_lost_is_fetched_again(update: Update) -> None:
    update.read("05")
    start = update.record("05").offset
    with (update.folder / "blob").open("r+b") as blob:
        blob.seek(start + 50_000)
        blob.write(bytes(1000))
    asked = len(update.source.asked)
    assert update.read("05", update.open()) == NEW["05"]
    assert len(update.source.asked) > asked


def test_what_has_arrived_is_told_in_the_layer_s_own_bytes(update: Update) -> None:
    for number in range(update.table.count):
        if not update.content.settle(number):
            update.content.fetch(update.content.run_from(number))
    assert update.content.here == len(BLOB)
