"""What the mount shows, asked without a mount."""

import stat
from pathlib import Path

import pytest

from edge.errors import StoreError
from edge.images.fuse import protocol
from edge.images.fuse.filesystem import Entry
from edge.images.image_store import chain_ids, link_of
from edge.images.namespace import OverlayNamespace, ServedLayer
from edge.images.soci.values import FileMetadata, FileType
from edge.images.tree import LayerTree, Record, write_tree

LOW, TOP = chain_ids([f"sha256:{letter * 64}" for letter in "ab"])
ROOT = protocol.ROOT


class Bytes:
    """Content that is the file's offset in the tar, repeated; on demand only where told so."""

    def __init__(self, *, ready: bool = True) -> None:
        self._ready = ready

    def ready(self, file: Record, offset: int, size: int) -> bytes | None:
        return self.read(file, offset, size) if self._ready else None

    def read(self, file: Record, offset: int, size: int) -> bytes:
        assert 0 <= offset < offset + size <= file.size
        return bytes([file.offset % 256]) * size


def entry(name: str, kind: FileType = FileType.REGULAR, size: int = 0, linkname: str = "") -> FileMetadata:
    return FileMetadata(name, kind, 77, size, linkname, 0o644)


def served(folder: Path, slot: int, layer_id: str, *lower: str, content: Bytes | None = None) -> ServedLayer:
    path = folder / f"{slot}.tree"
    members = [entry("etc/a", size=10), entry("etc/b", FileType.HARDLINK, linkname="etc/a"), entry("z")]
    write_tree(path, [*members, entry("s", FileType.SYMLINK, linkname="etc/a")])
    return ServedLayer(
        slot, layer_id, link_of(layer_id), tuple(map(link_of, lower)), LayerTree(path), content or Bytes()
    )


@pytest.fixture
def namespace(tmp_path: Path) -> OverlayNamespace:
    made = OverlayNamespace()
    made.add(served(tmp_path, 1, LOW), served(tmp_path, 2, TOP, LOW))
    return made


def walk(namespace: OverlayNamespace, path: str, start: int = ROOT) -> Entry:
    node, found = start, None
    for name in path.split("/"):
        found = namespace.lookup(node, name.encode())
        assert found is not None, (path, name)
        node = found.node
    assert found is not None
    return found


def mode(found: Entry) -> int:
    fields: tuple[int, ...] = protocol.ATTR.unpack(found.attributes)
    return fields[9]


def content(namespace: OverlayNamespace, path: str) -> bytes:
    return bytes(namespace.ready(walk(namespace, path).node, 0, 4096) or b"")


def names(namespace: OverlayNamespace, node: int, first: int = 0) -> list[bytes]:
    return [found.name for found in namespace.entries(node, first)]


def test_the_top_is_what_the_overlay_driver_looks_for(namespace: OverlayNamespace) -> None:
    assert names(namespace, ROOT) == [b"l", *sorted([LOW.encode(), TOP.encode()])]
    assert names(namespace, walk(namespace, "l").node) == sorted([link_of(LOW).encode(), link_of(TOP).encode()])
    assert names(namespace, walk(namespace, LOW).node) == [b"diff", b"link"]
    assert names(namespace, walk(namespace, TOP).node) == [b"diff", b"link", b"lower"]
    assert names(namespace, walk(namespace, TOP).node, 2) == [b"lower"]
    assert content(namespace, f"{TOP}/link") == link_of(TOP).encode()
    assert content(namespace, f"{TOP}/lower") == f"l/{link_of(LOW)}".encode()
    assert namespace.lookup(walk(namespace, LOW).node, b"lower") is None
    assert namespace.link(walk(namespace, f"l/{link_of(TOP)}").node) == f"../{TOP}/diff".encode()


def test_files_of_a_layer_are_found_and_read(namespace: OverlayNamespace) -> None:
    one, two = walk(namespace, f"{TOP}/diff/etc/a"), walk(namespace, f"{TOP}/diff/etc/b")
    assert one.node == two.node
    assert one.attributes == two.attributes
    assert namespace.ready(one.node, 3, 100) == b"M" * 7
    assert namespace.ready(one.node, 10, 100) == b""
    assert namespace.ready(one.node, 99, 100) == b""
    assert namespace.read(one.node, 9, 100) == b"M"
    assert namespace.link(walk(namespace, f"{TOP}/diff/s").node) == b"etc/a"
    assert names(namespace, walk(namespace, f"{TOP}/diff").node, 1) == [b"s", b"z"]


def test_listed_entries_are_those_that_are_found(namespace: OverlayNamespace) -> None:
    for path in ("l", LOW, TOP, f"{TOP}/diff", f"{TOP}/diff/etc"):
        folder = walk(namespace, path).node
        for found in namespace.entries(folder, 0):
            assert namespace.lookup(folder, found.name) == found
            assert namespace.attributes(found.node) == found.attributes


def test_two_layers_never_share_a_node(namespace: OverlayNamespace) -> None:
    paths = ("", "/link", "/diff", "/diff/etc", "/diff/etc/a", "/diff/z")
    nodes = {walk(namespace, f"{layer}{path}").node for layer in (LOW, TOP) for path in paths}
    assert len(nodes) == 2 * len(paths)


def test_content_that_must_be_waited_for_is_not_ready(tmp_path: Path) -> None:
    namespace = OverlayNamespace()
    namespace.add(served(tmp_path, 1, LOW, content=Bytes(ready=False)))
    node = walk(namespace, f"{LOW}/diff/etc/a").node
    assert namespace.ready(node, 0, 4096) is None
    assert namespace.read(node, 0, 4096) == b"M" * 10


def test_an_empty_file_is_always_ready(tmp_path: Path) -> None:
    namespace = OverlayNamespace()
    namespace.add(served(tmp_path, 1, LOW, content=Bytes(ready=False)))
    assert namespace.ready(walk(namespace, f"{LOW}/diff/z").node, 0, 4096) == b""


def test_an_unpacked_layers_diff_leads_away_and_nodes_in_use_go_on(namespace: OverlayNamespace) -> None:
    used = walk(namespace, f"{TOP}/diff/etc/a").node
    namespace.unpack(TOP, "/var/lib/plain")
    diff = walk(namespace, f"{TOP}/diff")
    assert stat.S_ISLNK(mode(diff))
    assert namespace.link(diff.node) == b"/var/lib/plain"
    assert namespace.ready(used, 0, 3) == b"MMM"
    assert names(namespace, walk(namespace, TOP).node) == [b"diff", b"link", b"lower"]


def test_a_removed_layer_is_gone_by_all_its_names_and_its_nodes_are_stale(namespace: OverlayNamespace) -> None:
    used = walk(namespace, f"{TOP}/diff/etc/a").node
    namespace.remove(TOP)
    assert namespace.lookup(ROOT, TOP.encode()) is None
    assert namespace.lookup(walk(namespace, "l").node, link_of(TOP).encode()) is None
    assert names(namespace, ROOT) == [b"l", LOW.encode()]
    for ask in (namespace.attributes, namespace.link, namespace.xattrs, lambda node: namespace.ready(node, 0, 1)):
        with pytest.raises(KeyError):
            ask(used)
    assert content(namespace, f"{LOW}/link") == link_of(LOW).encode()


def test_what_leads_to_layers_does_not_last_and_what_is_in_them_does(namespace: OverlayNamespace) -> None:
    folder = walk(namespace, TOP).node
    for node in (ROOT, walk(namespace, "l").node, folder):
        assert not namespace.lasts(node)
        before = namespace.attributes(node)
        namespace.unpack(TOP, "/plain")
        assert namespace.attributes(node) != before, "the kernel lists it anew"
    assert namespace.lasts(walk(namespace, f"{LOW}/diff").node)


@pytest.mark.parametrize("node", [99 << 32, (1 << 32) + 16 + 99, (1 << 64) - 1])
def test_a_node_of_no_layer_is_a_key_error(namespace: OverlayNamespace, node: int) -> None:
    for ask in (
        namespace.attributes,
        lambda node: namespace.lookup(node, b"x"),
        lambda node: list(namespace.entries(node, 0)),
        lambda node: namespace.ready(node, 0, 1),
    ):
        with pytest.raises(KeyError):
            ask(node)


def test_content_that_is_served_no_more_is_an_error_with_the_layers_name(tmp_path: Path) -> None:
    namespace = OverlayNamespace()
    layer = served(tmp_path, 1, LOW)
    namespace.add(ServedLayer(1, LOW, layer.link, (), layer.tree, None))
    with pytest.raises(StoreError, match=LOW[:12]):
        namespace.read(walk(namespace, f"{LOW}/diff/etc/a").node, 0, 1)


def test_times_before_1970_are_told_as_the_kernel_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "tree"
    write_tree(path, [entry("a")._replace(modified=-1_500_000_000)])
    namespace = OverlayNamespace()
    namespace.add(ServedLayer(1, LOW, link_of(LOW), (), LayerTree(path), None))
    fields = protocol.ATTR.unpack(walk(namespace, f"{LOW}/diff/a").attributes)
    assert (fields[4], fields[7]) == (2**64 - 2, 500_000_000)
