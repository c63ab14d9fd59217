"""Layer trees: what a tar's members become, and what of a hostile or damaged one is refused."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import InvalidInputError, StoreError
from edge.images.soci.values import FileMetadata, FileType
from edge.images.tree import LayerTree, Record, build_tree, write_tree

OPAQUE = {b"trusted.overlay.opaque": b"y"}


class Layer:
    """A built tree, asked by path."""

    def __init__(self, folder: Path, *entries: FileMetadata) -> None:
        path = folder / "layer.tree"
        write_tree(path, entries)
        self.tree = LayerTree(path)

    def find(self, path: str) -> Record | None:
        record = self.tree.record(0)
        for part in path.split("/"):
            number = self.tree.find(record, part.encode("utf-8", "surrogateescape"))
            if number is None:
                return None
            record = self.tree.record(number)
        return record

    def __getitem__(self, path: str) -> Record:
        found = self.find(path)
        assert found is not None, path
        return found

    def xattrs(self, path: str) -> dict[bytes, bytes]:
        return self.tree.xattrs(self[path])

    def names(self, folder: Record, skip: int = 0) -> list[bytes]:
        return [self.tree.name(record) for _, record in self.tree.children(folder, skip)]


def file(name: str, size: int = 0, offset: int = 512, **more: Any) -> FileMetadata:
    return FileMetadata(name, FileType.REGULAR, offset, size)._replace(**{"mode": 0o644, **more})


def folder(name: str, **more: Any) -> FileMetadata:
    return FileMetadata(name, FileType.DIRECTORY, 0, 0)._replace(**{"mode": 0o755, **more})


def link(name: str, target: str, kind: FileType = FileType.SYMLINK) -> FileMetadata:
    return FileMetadata(name, kind, 0, 0, linkname=target, mode=0o777)


def hard(name: str, target: str) -> FileMetadata:
    return link(name, target, FileType.HARDLINK)


def is_whiteout(record: Record) -> bool:
    return stat.S_ISCHR(record.mode) and record.device == 0


# --- whiteouts


def test_a_whiteout_becomes_a_character_device_of_numbers_zero(tmp_path: Path) -> None:
    layer = Layer(tmp_path, folder("etc"), file("etc/.wh.passwd"))
    assert is_whiteout(layer["etc/passwd"])
    assert layer.find("etc/.wh.passwd") is None


def test_an_opaque_mark_is_an_attribute_of_its_directory_and_no_file(tmp_path: Path) -> None:
    layer = Layer(tmp_path, folder("etc"), file("etc/.wh..wh..opq"), file("etc/new"))
    assert layer.xattrs("etc") == OPAQUE
    assert layer.names(layer["etc"]) == [b"new"]


def test_an_opaque_mark_outlives_its_directorys_later_member(tmp_path: Path) -> None:
    later = folder("etc", mode=0o700, pax=(("SCHILY.xattr.user.a", b"1"),))
    layer = Layer(tmp_path, file("etc/.wh..wh..opq"), later)
    assert layer.xattrs("etc") == {**OPAQUE, b"user.a": b"1"}
    assert stat.S_IMODE(layer["etc"].mode) == 0o700


def test_a_whiteout_leaves_what_its_own_layer_has_of_that_name(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("a", 3), file(".wh.a"), file(".wh.b"), file("b", 4))
    assert (layer["a"].size, layer["b"].size) == (3, 4)


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_directory_beside_its_own_whiteout_hides_what_is_below(tmp_path: Path, *, whiteout_first: bool) -> None:
    entries = [file(".wh.d"), file("d/new")]
    layer = Layer(tmp_path, *(entries if whiteout_first else reversed(entries)))
    assert layer.xattrs("d") == OPAQUE
    assert layer.names(layer["d"]) == [b"new"]


# --- links


def test_hard_links_share_inode_and_attributes_and_are_counted(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("bin/a", 5, uid=7), hard("bin/b", "bin/a"), hard("c", "./bin/b"))
    assert layer["bin/a"].inode == layer["bin/b"].inode == layer["c"].inode
    assert {(layer[name].size, layer[name].uid, layer[name].links) for name in ("bin/a", "bin/b", "c")} == {(5, 7, 3)}


def test_a_hard_link_keeps_the_file_whose_first_name_is_replaced(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("a", 5), hard("b", "a"), file("a", 9))
    assert [(layer[name].size, layer[name].links) for name in ("a", "b")] == [(9, 1), (5, 1)]


def test_a_hard_link_may_lead_to_a_symbolic_link(tmp_path: Path) -> None:
    layer = Layer(tmp_path, link("a", "/etc/x"), hard("b", "a"))
    assert layer.tree.target(layer["b"]) == b"/etc/x"


@pytest.mark.parametrize("target", ["nothing", "d", "gone", "a/b"])
def test_a_hard_link_to_what_is_no_file_of_the_layer_is_refused(target: str) -> None:
    with pytest.raises(InvalidInputError, match="leads to no file"):
        build_tree([folder("d"), file(".wh.gone"), file("a"), hard("b", target)])


def test_a_symbolic_link_keeps_its_target_byte_for_byte(tmp_path: Path) -> None:
    layer = Layer(tmp_path, link("a", "../../\udcff/ä"))
    assert layer.tree.target(layer["a"]) == b"../../\xff/\xc3\xa4"
    assert layer["a"].size == len(b"../../\xff/\xc3\xa4")


# --- what replaces what


def test_a_later_member_of_a_name_replaces_the_earlier(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("a", 1, 512), file("./a", 2, 1024), folder("d"), file("d/x"), file("d", 3))
    assert (layer["a"].size, layer["a"].offset) == (2, 1024)
    assert layer["d"].size == 3
    assert layer.find("d/x") is None


def test_a_directory_named_again_keeps_what_is_in_it(tmp_path: Path) -> None:
    layer = Layer(tmp_path, folder("d/"), file("d/x"), folder("./d/", mode=0o1777, gid=5))
    assert layer.find("d/x") is not None
    assert (stat.S_IMODE(layer["d"].mode), layer["d"].gid) == (0o1777, 5)


def test_the_root_takes_the_metadata_of_its_own_member(tmp_path: Path) -> None:
    root = Layer(tmp_path, folder("./", mode=0o711, uid=9), file("a")).tree.record(0)
    assert (stat.S_IMODE(root.mode), root.uid, root.entries) == (0o711, 9, 1)


def test_directories_that_no_member_names_are_there(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("usr/share/doc/a"))
    assert stat.S_ISDIR(layer["usr/share"].mode)
    assert layer["usr"].links == 3


# --- metadata


def test_extended_attributes_keep_every_byte(tmp_path: Path) -> None:
    pax = (("SCHILY.xattr.security.capability", b"\x00\x01\x00"), ("SCHILY.xattr.user.\udcff", b""), ("mtime", b"1"))
    layer = Layer(tmp_path, file("a", pax=pax))
    assert layer.xattrs("a") == {b"security.capability": b"\x00\x01\x00", b"user.\xff": b""}


@pytest.mark.parametrize(("major", "minor"), [(1, 3), (8, 0), (4095, 1_048_575), (0, 256), (259, 70_000)])
def test_device_numbers_are_encoded_as_the_kernel_does(tmp_path: Path, major: int, minor: int) -> None:
    entry = FileMetadata("dev/x", FileType.CHARACTER, 0, 0, mode=0o600, devmajor=major, devminor=minor)
    device = Layer(tmp_path, entry)["dev/x"].device
    # include/linux/kdev_t.h, new_decode_dev.
    assert ((device & 0xFFF00) >> 8, (device & 0xFF) | ((device >> 12) & 0xFFF00)) == (major, minor)


@pytest.mark.parametrize("time", [-1, -(10**18), 0, 1_700_000_000_123_456_789])
def test_times_before_1970_are_kept_to_the_nanosecond(tmp_path: Path, time: int) -> None:
    assert Layer(tmp_path, file("a", modified=time))["a"].modified == time


def test_times_that_no_field_can_hold_become_the_nearest(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("a", modified=10**30), file("b", modified=-(10**30)))
    assert (layer["a"].modified, layer["b"].modified) == (2**63 - 1, -(2**63))


def test_set_user_id_bits_are_kept_and_a_members_type_is_never_taken_from_its_mode(tmp_path: Path) -> None:
    assert Layer(tmp_path, file("a", mode=stat.S_IFDIR | 0o4755))["a"].mode == stat.S_IFREG | 0o4755


# --- names


def test_every_name_of_a_large_directory_is_found_and_no_other(tmp_path: Path) -> None:
    layer = Layer(tmp_path, *(file(f"d/{number * 7 % 3001:05d}x", number) for number in range(3001)))
    assert all(layer[f"d/{number * 7 % 3001:05d}x"].size == number for number in range(3001))
    assert all(layer.find(f"d/{name}") is None for name in ("", "0", "00000", "00001", "00001y", "99999x", "00001x0"))


def test_entries_come_in_one_order_and_from_any_place_on(tmp_path: Path) -> None:
    layer = Layer(tmp_path, *(file(name) for name in ("b", "a", "\udcff", "ä", "B")))
    assert layer.names(layer.tree.record(0)) == [b"B", b"a", b"b", b"\xc3\xa4", b"\xff"]
    assert layer.names(layer.tree.record(0), skip=3) == [b"\xc3\xa4", b"\xff"]


def test_a_path_is_told_from_the_root(tmp_path: Path) -> None:
    layer = Layer(tmp_path, file("usr/bin/x"), hard("usr/bin/a", "usr/bin/x"))
    assert layer.tree.path(layer["usr/bin/x"]) == b"usr/bin/x"
    assert layer.tree.path(layer["usr/bin/a"]) == b"usr/bin/a"
    assert layer.tree.path(layer.tree.record(0)) == b""


# --- what is refused


@pytest.mark.parametrize(
    "entry",
    [
        file("../etc/passwd"),
        file("a/../../b"),
        file("a\0b"),
        file("x" * 256),
        file("/".join(["x" * 200] * 21)),
        file("f/x"),
        file("l/x"),
        file("f/.wh..wh..opq"),
        file("f/.wh.x"),
        file(".wh."),
        hard("h", "../f"),
        link("s", ""),
        link("s", "x" * 4096),
        link("s", "a\0b"),
        file("a", -1),
        file("a", 5, -1),
        file("a", 2**63),
        file("a", pax=(("SCHILY.xattr.", b""),)),
        file("a", pax=(("SCHILY.xattr.user." + "x" * 70_000, b""),)),
        file("a", pax=(("SCHILY.xattr.user.x", bytes(65_537)),)),
    ],
    ids=lambda entry: repr(entry.name[:20]),
)
def test_what_linux_could_not_unpack_is_refused(entry: FileMetadata) -> None:
    with pytest.raises(InvalidInputError):
        build_tree([file("f"), link("l", "d"), folder("d"), entry])


def test_an_absolute_path_stays_inside_the_layer(tmp_path: Path) -> None:
    assert Layer(tmp_path, file("/etc/passwd", 4))["etc/passwd"].size == 4


# --- the file


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "longer", "magic", "count", "gone"])
def test_a_damaged_tree_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "layer.tree"
    write_tree(path, [file(f"usr/{number}", number) for number in range(50)])
    whole = path.read_bytes()
    half = len(whole) // 2
    damaged = {
        "cut": whole[:-1],
        "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        "empty": b"",
        "longer": whole + b"\0",
        "magic": b"edge-tree\x00\x00\x02" + whole[12:],
        "count": whole[:12] + (2**32 - 1).to_bytes(4, "little") + whole[16:],
    }
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])
    with pytest.raises(StoreError, match="layer tree"):
        LayerTree(path)


def test_an_entry_that_is_not_there_is_a_key_error(tmp_path: Path) -> None:
    tree = Layer(tmp_path, file("a")).tree
    for number in (-1, 2, 2**32):
        with pytest.raises(KeyError):
            tree.record(number)


def test_an_empty_layer_is_a_root(tmp_path: Path) -> None:
    tree = Layer(tmp_path).tree
    assert tree.count == 1
    assert list(tree.children(tree.record(0))) == []
    assert tree.find(tree.record(0), b"a") is None


def test_the_same_members_make_the_same_bytes() -> None:
    entries = [file("b/x", 3), folder("a"), link("c", "b")]
    assert build_tree(entries) == build_tree(entries)


# --- any tree

_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."} and not name.startswith(".wh.")
)
_attributes = st.dictionaries(st.sampled_from(["user.a", "user.b", "security.capability"]), st.binary(max_size=40))
_facts = st.tuples(
    st.integers(0, 2**40), st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(-(2**62), 2**62), _attributes
)
_Tree = dict[str, object]
_trees: st.SearchStrategy[_Tree] = st.recursive(
    st.dictionaries(_names, _facts, max_size=5),
    lambda inner: st.dictionaries(_names, st.one_of(_facts, inner), max_size=5),
    max_leaves=40,
)


@settings(deadline=None)
@given(_trees)
def test_any_tree_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, tree: _Tree) -> None:
    layer = Layer(tmp_path_factory.mktemp("tree"), *_members(tree, ""))
    try:
        assert _read(layer, layer.tree.record(0)) == tree
    finally:
        layer.tree.close()


def _members(tree: _Tree, prefix: str) -> Iterator[FileMetadata]:
    for name, value in tree.items():
        path = prefix + name
        if isinstance(value, dict):
            yield folder(path)
            yield from _members(value, f"{path}/")
        else:
            assert isinstance(value, tuple)
            size, mode, owner, modified, xattrs = value
            pax = tuple((f"SCHILY.xattr.{key}", data) for key, data in xattrs.items())
            yield file(path, size, mode=mode, uid=owner, gid=owner, modified=modified, pax=pax)


def _read(layer: Layer, of: Record) -> _Tree:
    found: _Tree = {}
    for number, record in layer.tree.children(of):
        name = layer.tree.name(record)
        assert layer.tree.find(of, name) == number
        if stat.S_ISDIR(record.mode):
            found[name.decode()] = _read(layer, record)
        else:
            xattrs = {key.decode(): value for key, value in layer.tree.xattrs(record).items()}
            found[name.decode()] = (record.size, stat.S_IMODE(record.mode), record.uid, record.modified, xattrs)
    return found
