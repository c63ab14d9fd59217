"""What is read ahead of a container's first read, found in an image's layers as the container will see them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.images.first_files import ImageLayer, read_first_files
from edge.images.soci.values import FileMetadata, FileType
from edge.images.tree import LayerTree, Record, write_tree

PROGRAM = Path("/bin/ls").read_bytes()[:4096]
"""A dynamic program of this host."""
FOUND = re.search(rb"/lib[^\x00]*/ld-[^\x00]+", PROGRAM)
assert FOUND is not None
LOADER = FOUND[0].decode()
LIBRARY = str(Path(LOADER).parent / "libc.so.6")
STATIC = b"\x7fELF\x02\x01" + bytes(58)


class Files:
    """A layer's content; remembers what was read."""

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}
        self.reads: list[tuple[int, int]] = []

    def ready(self, file: Record, offset: int, size: int) -> bytes | None:
        return self.read(file, offset, size)

    def read(self, file: Record, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        return self.contents[file.offset][offset : offset + size]


class Image:
    """Layers, made from the lowest up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.layers: list[ImageLayer] = []

    def add(self, files: dict[str, bytes | str]) -> Files:
        """A layer of files, and of links where a value is text."""
        content, members = Files(), []
        for number, (name, value) in enumerate(files.items(), 1):
            if isinstance(value, str):
                members.append(FileMetadata(name, FileType.SYMLINK, 0, 0, value, 0o777))
            else:
                members.append(FileMetadata(name, FileType.REGULAR, number * 512, len(value), "", 0o755))
                content.contents[number * 512] = value
        path = self._folder / f"{len(self.layers)}.tree"
        write_tree(path, members)
        self.layers.insert(0, ImageLayer(LayerTree(path), content))
        return content

    def first(self, *command: str, path: str = "", folder: str = "", entry: bool = True) -> list[str]:
        """What is read first with this command."""
        config = {
            ("Entrypoint" if entry else "Cmd"): list(command),
            "Env": ["A=b", *([f"PATH={path}"] if path else [])],
            "WorkingDir": folder,
        }
        return read_first_files(self.layers, json.dumps({"config": config}).encode())


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    made = Image(tmp_path)
    made.add({"lib": "usr/lib", "lib64": "usr/lib64", f"usr{LOADER}": b"l" * 9000, f"usr{LIBRARY}": b"c" * 9000})
    yield made
    for layer in made.layers:
        layer.tree.close()


def test_the_program_its_loader_and_the_c_library_in_their_order(image: Image) -> None:
    content = image.add({"usr/bin/app": PROGRAM})
    assert image.first("/usr/bin/app") == ["/usr/bin/app", f"/usr{LOADER}", f"/usr{LIBRARY}"]
    assert content.reads == [(0, len(PROGRAM))]


@pytest.mark.parametrize("entry", [True, False])
def test_a_name_is_looked_for_in_the_path(image: Image, entry: bool) -> None:  # noqa: FBT001
    image.add({"opt/bin/app": STATIC, "usr/bin/app": STATIC})
    assert image.first("app", entry=entry) == ["/usr/bin/app"]
    assert image.first("app", entry=entry, path="/nowhere:/opt/bin:/usr/bin") == ["/opt/bin/app"]


def test_a_relative_program_is_in_the_working_directory(image: Image) -> None:
    image.add({"srv/app/run": STATIC})
    assert image.first("./run", folder="/srv/app") == ["/srv/app/run"]


def test_of_a_script_its_interpreter_is_read_too(image: Image) -> None:
    image.add({"run": b"#! /usr/bin/env sh\n", "usr/bin/env": STATIC})
    assert image.first("/run") == ["/run", "/usr/bin/env"]


def test_links_are_followed_through_layers(image: Image) -> None:
    image.add({"usr/bin/app": "../lib/app/real", "usr/lib/app/real": STATIC})
    image.add({"bin": "usr/bin", "start": "/bin/app"})
    assert image.first("/start") == ["/usr/lib/app/real"]


def test_an_upper_layer_s_file_counts_and_what_it_removed_is_gone(image: Image) -> None:
    lower = image.add({"app": STATIC, "other": STATIC, "folder/app": STATIC})
    upper = image.add({"app": STATIC, ".wh.other": b"", "folder": "nowhere"})
    assert image.first("/app") == ["/app"]
    assert (len(upper.reads), len(lower.reads)) == (1, 0)
    assert image.first("/other") == []
    assert image.first("/folder/app") == []


@pytest.mark.parametrize(
    "files",
    [
        {"app": "app"},
        {"app": b""},
        {"app": b"#!\n"},
        {"app": b"#!/app\n"},
        {"app": PROGRAM[:70]},
        {"app": PROGRAM[:54] + b"\xff\xff\xff\xff" + PROGRAM[58:]},
        {"app/inside": STATIC},
        {},
    ],
)
def test_what_is_unusual_ends_the_search(image: Image, files: dict[str, bytes | str]) -> None:
    image.add(files)
    assert set(image.first("/app")) <= {"/app"}


@pytest.mark.parametrize("config", [None, [], {}, {"Entrypoint": None, "Cmd": [1]}, {"Cmd": "x"}])
def test_an_image_without_a_program_has_no_first_file(image: Image, config: object) -> None:
    assert read_first_files(image.layers, json.dumps({"config": config}).encode()) == []
