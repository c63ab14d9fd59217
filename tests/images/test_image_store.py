"""The additional image store's records: what Podman reads, and what a crash leaves."""

import json
import os
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import StoreError
from edge.images.image_store import ImageRecord, ImageStore, LayerRecord, chain_ids, link_of

A, B, C = chain_ids([f"sha256:{letter * 64}" for letter in "abc"])
CREATED = "2026-01-02T03:04:05Z"


def layer(layer_id: str, parent: str = "") -> LayerRecord:
    return LayerRecord(layer_id, parent, f"sha256:{'1' * 64}", 10, f"sha256:{'2' * 64}", 20, 2, CREATED)


def image(letter: str, top: str, *names: str) -> ImageRecord:
    return ImageRecord(letter * 64, f"sha256:{letter * 63}0", names, top, CREATED)


def publish(store: ImageStore, one: ImageRecord, *layers: LayerRecord) -> None:
    store.publish(one, layers, b'{"manifest":1}', b'{"config":1}')


def records(store: ImageStore, part: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((store.root / f"overlay-{part}" / f"{part}.json").read_bytes())
    return found


def lock(store: ImageStore, part: str) -> Path:
    return store.root / f"overlay-{part}" / f"{part}.lock"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


# --- names that containers/storage computes


def test_chain_ids_are_those_of_containers_storage() -> None:
    # printf "$A+$B" | sha256sum; github.com/opencontainers/image-spec/blob/v1.1.0/config.md#layer-chainid
    assert A == "a" * 64
    assert B == "76f79efda453922cda1cecb6ec9e7cf9d86ea968c6dd199d4030dd00078a1686"
    assert len({A, B, C}) == 3


def test_links_are_26_characters_and_always_the_same() -> None:
    assert link_of(A) == link_of(A) != link_of(B)
    assert len(link_of(A)) == 26
    assert set(link_of(A)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


# --- publish


def test_a_new_store_has_all_that_podman_needs_to_read_it_on_a_read_only_disk(store: ImageStore) -> None:
    assert (store.root / "overlay").is_dir()
    assert lock(store, "layers").exists()
    assert lock(store, "images").exists()


def test_a_published_image_is_written_as_containers_storage_does(store: ImageStore) -> None:
    publish(store, image("e", B, "localhost/app:1"), layer(A), layer(B, A))
    low, top = records(store, "layers")
    assert "parent" not in low
    assert top == {
        "id": B,
        "parent": A,
        "created": CREATED,
        "compressed-diff-digest": f"sha256:{'1' * 64}",
        "compressed-size": 10,
        "diff-digest": f"sha256:{'2' * 64}",
        "diff-size": 20,
        "compression": 2,
    }
    (written,) = records(store, "images")
    assert (written["id"], written["layer"], written["names"]) == ("e" * 64, B, ["localhost/app:1"])
    keys = ["manifest", f"manifest-sha256:{'e' * 63}0", f"sha256:{'e' * 64}"]
    assert written["big-data-names"] == keys
    assert written["big-data-sizes"] == dict(zip(keys, (14, 14, 12), strict=True))
    files = {path.name for path in (store.root / "overlay-images" / ("e" * 64)).iterdir()}
    assert "manifest" in files
    assert sum(name.startswith("=") for name in files) == 2
    assert store.data("e" * 64) == (b'{"manifest":1}', b'{"config":1}')


def test_an_opened_store_knows_what_was_published(store: ImageStore) -> None:
    one = image("e", B, "localhost/app:1")
    publish(store, one, layer(A), layer(B, A))
    again = ImageStore(store.root)
    assert again.images() == (one,)
    assert again.layers() == (layer(A), layer(B, A))
    assert again.chain(B) == (layer(A), layer(B, A))


def test_a_name_belongs_to_the_image_that_had_it_last(store: ImageStore) -> None:
    publish(store, image("e", A, "localhost/app:1", "localhost/app:latest"), layer(A))
    publish(store, image("f", B, "localhost/app:latest"), layer(B, A))
    assert {one["id"][0]: one["names"] for one in records(store, "images")} == {
        "e": ["localhost/app:1"],
        "f": ["localhost/app:latest"],
    }


def test_a_name_given_twice_is_written_once(store: ImageStore) -> None:
    publish(store, image("e", A, "localhost/app:1", "localhost/app:1"), layer(A))
    assert records(store, "images")[0]["names"] == ["localhost/app:1"]


def test_an_image_takes_a_further_name(store: ImageStore) -> None:
    one = image("e", A, "localhost/app:1")
    publish(store, one, layer(A))
    publish(store, replace(one, names=(*one.names, "localhost/app:2")))
    assert store.images() == (image("e", A, "localhost/app:1", "localhost/app:2"),)


def test_an_image_whose_layers_are_not_there_is_not_published(store: ImageStore) -> None:
    publish(store, image("e", A), layer(A))
    for layers in ((), (layer(C, B),), (layer(C, B), layer(B, A))):
        with pytest.raises(StoreError, match="has no layer"):
            publish(store, image("f", C), *layers)
    assert ImageStore(store.root).images() == (image("e", A),)


# --- remove


def test_removing_returns_the_layers_that_nobody_else_needs(store: ImageStore) -> None:
    publish(store, image("e", B), layer(A), layer(B, A))
    publish(store, image("f", A))
    assert store.remove("e" * 64) == (layer(B, A),)
    assert [one["id"] for one in records(store, "layers")] == [A]
    assert not (store.root / "overlay-images" / ("e" * 64)).exists()
    assert ImageStore(store.root).images() == (image("f", A),)


@pytest.mark.parametrize("image_id", ["", "..", "d" * 64])
def test_removing_what_is_not_there_changes_nothing(store: ImageStore, image_id: str) -> None:
    publish(store, image("e", A), layer(A))
    before = lock(store, "images").read_bytes()
    assert store.remove(image_id) == ()
    assert lock(store, "images").read_bytes() == before
    assert store.data("e" * 64)


# --- how a running Podman notices


def test_each_change_writes_64_new_bytes_into_both_locks_in_place(store: ImageStore) -> None:
    seen: set[bytes] = set()
    inodes = {part: lock(store, part).stat().st_ino for part in ("layers", "images")}
    began = time.time_ns()
    for change in (lambda: publish(store, image("e", A), layer(A)), lambda: store.remove("e" * 64)):
        change()
        for part, inode in inodes.items():
            assert lock(store, part).stat().st_ino == inode
            seen.add(lock(store, part).read_bytes())
    assert len(seen) == 4
    for stamp in seen:
        moment, _, pid, _ = struct.unpack("<QQI44s", stamp)
        assert began <= moment <= time.time_ns()
        assert pid == os.getpid()


def test_both_locks_are_held_while_records_change(store: ImageStore) -> None:
    publish(store, image("e", A), layer(A))
    with store._locked() as locks:
        store._write("overlay-layers", store._layers, locks)
        assert _who_may_read(store) == {"layers": False, "images": False}
    assert _who_may_read(store) == {"layers": True, "images": True}


def test_a_change_waits_for_a_podman_that_reads(store: ImageStore) -> None:
    publish(store, image("e", A), layer(A))
    reader = _python(_HOLD, lock(store, "images"))
    writer: subprocess.Popen[bytes] | None = None
    try:
        assert reader.stdout is not None
        assert reader.stdout.read(1) == b"x"
        writer = _python(_REMOVE, store.root)
        _wait_for_blocked(writer.pid)
        assert ImageStore(store.root).images() == (image("e", A),)
    finally:
        reader.communicate(timeout=30)
        if writer is not None:
            writer.communicate(timeout=30)
    assert ImageStore(store.root).images() == ()


def _python(code: str, *arguments: Path) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-c", code, *map(str, arguments))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


_REMOVE = """
import sys
from pathlib import Path
from edge.images.image_store import ImageStore
ImageStore(Path(sys.argv[1])).remove("e" * 64)
"""
_HOLD = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_SH)
    sys.stdout.write("x")
    sys.stdout.flush()
    sys.stdin.read()
"""
_TRY = """
import fcntl, sys
with open(sys.argv[1], "rb") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        sys.exit(3)
"""


def _who_may_read(store: ImageStore) -> dict[str, bool]:
    return {
        part: subprocess.run((sys.executable, "-c", _TRY, str(lock(store, part))), check=False).returncode == 0
        for part in ("layers", "images")
    }


def _wait_for_blocked(pid: int) -> None:
    """Wait until `/proc/locks` shows the process waiting (`->`) for a lock."""
    deadline = time.monotonic() + 30
    while not any("->" in line and str(pid) in line.split() for line in Path("/proc/locks").read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- after a crash or a power cut


@pytest.mark.parametrize(
    "content",
    [b"", b'[{"id":"', b"{}", b"null", b"[1]", b'[{"id":"x"}]', b"\0" * 100],
    ids=["empty", "half", "object", "null", "numbers", "fields missing", "zeros"],
)
@pytest.mark.parametrize("part", ["layers", "images"])
def test_records_that_cannot_be_read_say_what_to_do(store: ImageStore, part: str, content: bytes) -> None:
    publish(store, image("e", A), layer(A))
    path = store.root / f"overlay-{part}" / f"{part}.json"
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        ImageStore(store.root)
    assert part in str(caught.value)
    assert "Remove the image store" in caught.value.hint
    assert path.read_bytes() == content


def test_an_image_whose_layer_was_lost_is_told(store: ImageStore) -> None:
    publish(store, image("e", B), layer(A), layer(B, A))
    left = [record for record in records(store, "layers") if record["id"] != A]
    (store.root / "overlay-layers" / "layers.json").write_text(json.dumps(left))
    with pytest.raises(StoreError, match=f"no layer {A}"):
        ImageStore(store.root)


def test_a_crash_between_the_two_files_leaves_the_images_that_were_there(store: ImageStore) -> None:
    publish(store, image("e", A), layer(A))
    images = (store.root / "overlay-images" / "images.json").read_bytes()
    publish(store, image("f", B), layer(B, A))
    (store.root / "overlay-images" / "images.json").write_bytes(images)
    again = ImageStore(store.root)
    assert again.images() == (image("e", A),)
    publish(again, image("f", B), layer(B, A))
    assert again.remove("f" * 64) == (layer(B, A),)


def test_a_disk_that_takes_nothing_leaves_the_former_records_in_force(store: ImageStore) -> None:
    publish(store, image("e", A, "localhost/app:1"), layer(A))
    folder = store.root / "overlay-images"
    folder.rename(store.root / "aside")
    folder.write_text("in the way")
    with pytest.raises(StoreError):
        publish(store, image("f", A, "localhost/app:1"))
    folder.unlink()
    (store.root / "aside").rename(folder)
    assert store.images() == ImageStore(store.root).images() == (image("e", A, "localhost/app:1"),)


def test_the_store_is_opened_without_a_look_at_the_mount_nobody_may_answer_for(store: ImageStore) -> None:
    overlay = store.root / "overlay"
    overlay.rmdir()
    # A loop cannot be looked at either, and is there: as a mount without a server, but it fails where that hangs.
    overlay.symlink_to(overlay)
    assert ImageStore(store.root).images() == ()
