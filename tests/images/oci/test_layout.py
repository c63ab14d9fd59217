"""Layouts as others write them are read, from folders and archives; what is damaged or hostile is refused."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from edge.errors import EdgeError, ImagePullError, InvalidInputError, NotFoundError
from edge.images.oci.documents import OCI_MANIFEST, Descriptor, digest_of
from edge.images.oci.layout import OciLayout
from edge.images.oci.layout_writer import LayoutWriter, write_archive
from tests.support import oci_layout

ARM: Final = "arm64"
CONTENT: Final = bytes(range(256)) * 5000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image for two architectures."""
    written = oci_layout.OciLayout(tmp_path / "layout")
    layer = oci_layout.layer({"data": CONTENT})
    written.finish(*(written.image([layer], {"Cmd": [one]}, one) for one in ("amd64", ARM)), tag="1")
    return written.folder


def archived(folder: Path) -> Path:
    """The same, as skopeo archives it."""
    archive = folder.with_suffix(".tar")
    command = ("skopeo", "copy", "--all", "--quiet", f"oci:{folder}:1", f"oci-archive:{archive}:1")
    subprocess.run(command, check=True)
    return archive


def as_it_is(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("form", [as_it_is, archived])
def test_an_image_is_read_from_a_folder_and_from_an_archive(folder: Path, form: Callable[[Path], Path]) -> None:
    layout = OciLayout.at(form(folder))
    reference = layout.reference("1")
    manifest = layout.image(reference, ARM)
    assert layout.configuration(reference, manifest).architecture == ARM
    blob = manifest.layers[0]
    data = layout.blob(reference, blob, blob.size)
    assert digest_of(data) == blob.digest
    assert b"".join(layout.chunks(reference, blob, 100, 1000)) == data[100:1100]
    assert layout.image(layout.reference(), ARM) == manifest
    assert layout.manifest(reference.at(manifest.digest)) == manifest
    with pytest.raises(ImagePullError, match=r"linux/amd64, linux/arm64"):
        layout.image(reference, "riscv64")


def test_what_is_not_there_is_named_with_what_is(folder: Path, tmp_path: Path) -> None:
    layout = OciLayout.at(folder)
    with pytest.raises(NotFoundError, match="no image 2") as caught:
        layout.manifest(layout.reference("2"))
    assert "It has: 1." in caught.value.hint
    with pytest.raises(NotFoundError, match="no blob sha256:000"):
        layout.blob(layout.reference(), Descriptor("", f"sha256:{'0' * 64}", 3), 10)
    with pytest.raises(NotFoundError):
        OciLayout.at(tmp_path / "nothing")


def test_several_images_without_a_name_given_are_listed(folder: Path) -> None:
    writer = LayoutWriter(folder)
    manifest = OciLayout.at(folder).image(OciLayout.at(folder).reference(), ARM)
    writer.list_manifest(Descriptor(OCI_MANIFEST, manifest.digest, len(manifest.data)), "2")
    layout = OciLayout.at(folder)
    with pytest.raises(InvalidInputError, match="several images: 1, 2"):
        layout.manifest(layout.reference())
    assert layout.manifest(layout.reference("2")) == manifest


def test_a_changed_byte_of_a_document_or_blob_is_found(folder: Path) -> None:
    layout = OciLayout.at(folder)
    manifest = layout.image(layout.reference(), ARM)
    for digest, read in (
        (manifest.config.digest, lambda: layout.configuration(layout.reference(), manifest)),
        (manifest.digest, lambda: layout.image(layout.reference(), ARM)),
    ):
        path = folder / "blobs" / digest.replace(":", "/")
        data = bytearray(path.read_bytes())
        data[5] ^= 1
        path.write_bytes(data)
        with pytest.raises(InvalidInputError, match=f"blob {digest} has digest"):
            read()


def test_a_blob_of_another_size_is_refused_before_it_is_read(folder: Path) -> None:
    layout = OciLayout.at(folder)
    blob = layout.image(layout.reference(), ARM).layers[0]
    os.truncate(folder / "blobs" / blob.digest.replace(":", "/"), blob.size - 1)
    with pytest.raises(InvalidInputError, match=f"{blob.size - 1} bytes, not {blob.size}"):
        layout.chunks(layout.reference(), blob, 0, blob.size)
    with pytest.raises(InvalidInputError, match="10 are the most"):
        layout.blob(layout.reference(), blob, 10)


def test_what_is_no_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="no oci-layout"):
        OciLayout.at(tmp_path / "empty")
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    with pytest.raises(InvalidInputError, match=r"version 2\.0\.0"):
        OciLayout.at(folder)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x1f\x8b" + bytes(600), "compressed with gzip"),
        (b"no tar at all".ljust(512, b"x"), "no tar archive"),
        (header("oci-layout", 4096), "breaks off"),
        (header("index.json", -1), "negative size"),
        (header("x", 1 << 20, tarfile.XHDTYPE) + bytes(1 << 20), "pax header of 1048576 bytes"),
        (header("oci-layout", 1 << 30), "breaks off"),
        (bytes(1024), "no oci-layout"),
        (b"", "no oci-layout"),
    ],
)
def test_a_hostile_archive_is_refused_with_a_reason(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    with pytest.raises(EdgeError, match=told):
        OciLayout.at(path)


def test_names_that_lead_out_of_an_archive_are_no_blobs(tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("../oci-layout", "/oci-layout"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    with pytest.raises(NotFoundError, match="no oci-layout"):
        OciLayout.at(path)


def test_a_size_that_only_a_pax_header_states_is_found(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pax.tar"
    with path.open("wb") as tar:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            data = file.read_bytes()
            record = f"{len(str(len(data))) + 9} size={len(data)}\n".encode()
            record = record if len(record) == int(record.split()[0]) else b"%d size=%d\n" % (len(record), len(data))
            assert len(record) == int(record.split()[0])
            tar.write(header("pax", len(record), tarfile.XHDTYPE) + record.ljust(512, b"\0"))
            tar.write(header(str(file.relative_to(folder)), 0) + data + bytes(-len(data) % 512))
        tar.write(bytes(1024))
    layout = OciLayout.at(path)
    manifest = layout.image(layout.reference("1"), ARM)
    assert len(layout.blob(layout.reference(), manifest.layers[0], 1 << 20)) == manifest.layers[0].size


def test_what_was_written_is_read_by_us_and_by_skopeo(folder: Path, tmp_path: Path) -> None:
    read, writer = OciLayout.at(folder), LayoutWriter(tmp_path / "copy")
    manifest = read.image(read.reference(), ARM)
    for blob in (manifest.config, *manifest.layers):
        writer.add_pieces(blob, read.chunks(read.reference(), blob, 0, blob.size))
    writer.list_manifest(writer.add(manifest.data, OCI_MANIFEST), "new")
    write_archive(writer.folder, tmp_path / "copy.tar")
    for where in (f"oci:{writer.folder}:new", f"oci-archive:{tmp_path / 'copy.tar'}:new"):
        told = subprocess.run(("skopeo", "inspect", "--raw", where), check=True, capture_output=True).stdout
        assert told == manifest.data
    archive = OciLayout.at(tmp_path / "copy.tar")
    assert archive.image(archive.reference("new"), ARM) == manifest


def test_equal_layouts_make_equal_archives(folder: Path, tmp_path: Path) -> None:
    write_archive(folder, tmp_path / "a.tar")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    write_archive(folder, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_name_lists_one_manifest_the_newest(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "new")
    config = writer.add(b"{}", "application/vnd.oci.image.config.v1+json")
    found = []
    for number in range(2):
        document = {
            "schemaVersion": 2,
            "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
            "layers": [],
            "annotations": {"number": str(number)},
        }
        found.append(writer.add(json.dumps(document).encode(), OCI_MANIFEST))
        writer.list_manifest(found[-1], "1")
    layout = OciLayout.at(writer.folder)
    assert [entry.digest for entry in layout.entries()] == [found[1].digest]


def test_pieces_of_another_blob_are_not_kept(tmp_path: Path) -> None:
    writer = LayoutWriter(tmp_path / "new")
    with pytest.raises(InvalidInputError, match="came for blob"):
        writer.add_pieces(Descriptor("", digest_of(b"this"), 4), [b"th", b"at"])
    assert [path.name for path in (writer.folder / "blobs" / "sha256").iterdir()] == []


def test_a_folder_with_other_files_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InvalidInputError, match="holds other files"):
        LayoutWriter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
