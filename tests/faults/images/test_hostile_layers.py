"""Layers and indexes made to do harm: refused with the reason, the service goes on, nothing is written outside."""

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge.errors import EdgeError, EngineError
from edge.images.oci.client import RegistryClient
from edge.images.oci.documents import Descriptor, digest_of, host_architecture
from edge.images.oci.references import ImageReference, parse_reference
from edge.images.oci.registries import Registries
from edge.images.soci import manifests
from edge.images.soci.builder import build_layer_index
from edge.images.soci.compact import pack_ztoc
from edge.images.soci.values import Compression, FileMetadata, FileType, Ztoc
from edge.images.soci.ztoc import write_ztoc
from tests.support.lazy_rig import TestImage, rig, write_registries
from tests.support.oci_layout import OciLayout
from tests.support.registry import Registry

pytestmark = [pytest.mark.registry, pytest.mark.timeout(180)]

SECRET = Path("/tmp/edge-hostile-layer")
MEMORY_LIMIT_MB = 200


def _tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, size, 0o644
    return info


def _push(registry: Registry, name: str, tar: bytes) -> str:
    layout = OciLayout(SECRET.parent / f"edge-layout-{os.getpid()}-{name}")
    try:
        layout.finish(layout.image([tar], {}, host_architecture()), tag="1")
        layout.push(registry, f"hostile/{name}", "1")
    finally:
        for path in sorted(layout.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        layout.folder.rmdir()
    return f"hostile/{name}:1"


OUTSIDE = {
    "parent": _tar(_member(f"../../../../..{SECRET}", size=4)),
    "absolute": _tar(_member(str(SECRET), size=4)),
    "through-a-link": _tar(_member("out", tarfile.SYMTYPE, "/tmp"), _member(f"out/{SECRET.name}", size=4)),
    "hard-link-outside": _tar(_member("link", tarfile.LNKTYPE, "../../../../../etc/shadow")),
    "hard-link-to-itself": _tar(_member("a", tarfile.LNKTYPE, "b"), _member("b", tarfile.LNKTYPE, "a")),
    "looping-links": _tar(_member("a", tarfile.SYMTYPE, "b"), _member("b", tarfile.SYMTYPE, "a"), _member("c", size=3)),
    "file-as-folder": _tar(_member("a", size=3), _member("a/b", size=3)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_layer_that_points_outside_writes_and_shows_nothing_of_the_host(
    tmp_path: Path, registry: Registry, image: TestImage, name: str
) -> None:
    SECRET.unlink(missing_ok=True)
    reference = _push(registry, name, OUTSIDE[name])
    with rig(tmp_path, registry) as made:
        try:
            found = made.service.prepare(f"{made.proxy.address}/{reference}")
        except EdgeError:
            assert name != "looping-links", "the only one that may be had"
        else:
            made.until(lambda: made.service.image(found["imageId"])["state"] == "MATERIALIZED" or bool(
                made.service.image(found["imageId"])["problem"]
            ))  # fmt: skip
            for path in (made.service.state_dir / "unpacked").rglob("*"):
                assert path.is_symlink() or path.resolve().is_relative_to(made.service.state_dir.resolve())
                assert path.lstat().st_ino != Path("/etc/shadow").stat().st_ino
        assert not SECRET.exists()
        made.prepare(image)
        made.check(image)


def _lie_about_sizes(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, files=tuple(one._replace(size=1 << 40) for one in ztoc.files))


def _lie_about_offsets(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, files=tuple(one._replace(offset=-1) for one in ztoc.files))


def _point_outside(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, files=(*ztoc.files, FileMetadata("../../etc/x", FileType.REGULAR, ztoc.uncompressed_size, 0)))


def _overlap(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, files=(*ztoc.files, ztoc.files[0]._replace(name="again")))


def _end_early(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, compressed_size=ztoc.compressed_size // 2)


def _say_more(ztoc: Ztoc) -> Ztoc:
    return replace(ztoc, uncompressed_size=1 << 50)


@pytest.mark.parametrize("lie", [_lie_about_sizes, _lie_about_offsets, _point_outside, _overlap, _end_early, _say_more])
def test_an_index_that_lies_is_left_aside_and_the_layer_fetched_whole(
    tmp_path: Path, registry: Registry, image: TestImage, lie: Callable[[Ztoc], Ztoc]
) -> None:
    copy = _copy_with_index(
        tmp_path, registry, image, lie.__name__.strip("_").replace("_", "-"), lambda z: write_ztoc(lie(z))
    )
    with rig(tmp_path, registry) as made:
        made.prepare(copy)
        made.check(copy)
        assert "fetched whole" in made.notes()


@pytest.mark.parametrize(
    "document", [b"", b"z" * 1000, bytes(4 << 20), b"\xff" * 100_000], ids=["empty", "text", "zeros", "ones"]
)
def test_an_index_that_is_none_is_left_aside(
    tmp_path: Path, registry: Registry, image: TestImage, document: bytes
) -> None:
    copy = _copy_with_index(tmp_path, registry, image, f"none-{len(document)}", lambda _: document)
    with rig(tmp_path, registry) as made:
        made.prepare(copy)
        made.check(copy)


def test_an_index_that_swaps_the_files_is_found_out_before_the_layer_is_unpacked(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    """Whoever may push an index may say which bytes are which file: DiffID and digest are of the tar, not of it."""

    def swap(ztoc: Ztoc) -> bytes:
        one, two = ztoc.files[0], ztoc.files[1]
        return write_ztoc(
            replace(ztoc, files=(one._replace(name=two.name), two._replace(name=one.name), *ztoc.files[2:]))
        )

    copy = _copy_with_index(tmp_path, registry, image, "swapped", swap)
    with rig(tmp_path, registry) as made:
        found = made.prepare(copy)
        made.until(lambda: made.service.image(found["imageId"])["problem"] != "")
        assert "does not describe this layer" in made.service.image(found["imageId"])["problem"]


def test_a_gzip_bomb_is_refused_and_the_memory_stays_small(
    tmp_path: Path, registry: Registry, image: TestImage
) -> None:
    with rig(tmp_path, registry) as made:
        bomb = _push_blob_image(registry, gzip.compress(bytes(300 << 20), 9))
        with pytest.raises(EngineError):
            made.service.prepare(f"{made.proxy.address}/{bomb}")
        made.prepare(image)
        made.check(image)
        peak = int(Path(f"/proc/{made.service.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
        assert peak < MEMORY_LIMIT_MB


def _push_blob_image(registry: Registry, layer: bytes) -> str:
    client, reference = _client(registry, "hostile/bomb-layer:1")
    found = client.push_blob(reference, layer)
    configuration = json.dumps({
        "architecture": host_architecture(), "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]},
    }).encode()  # fmt: skip
    config = client.push_blob(reference, configuration)
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": manifests.OCI_MANIFEST,
        "config": {"mediaType": manifests.OCI_CONFIG, "digest": config.digest, "size": config.size},
        "layers": [{"mediaType": kind, "digest": found.digest, "size": found.size}],
    }).encode()  # fmt: skip
    client.push_manifest(reference, manifest, manifests.OCI_MANIFEST)
    return "hostile/bomb-layer:1"


def _copy_with_index(
    folder: Path, registry: Registry, image: TestImage, name: str, spoil: Callable[[Ztoc], bytes]
) -> TestImage:
    """The image again in a repository of its own, with an index that is right but for the lowest layer's zTOC."""
    target = f"copies/{name}"
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    source = f"docker://{registry.address}/{image.name}"
    subprocess.run(
        ("skopeo", "copy", "--quiet", *insecure, source, f"docker://{registry.address}/{target}:1"), check=True
    )
    client, reference = _client(registry, f"{target}:1", folder)
    manifest = client.image(reference, host_architecture())
    layer = manifest.layers[0]
    ztoc = build_layer_index(client.chunks(reference, layer, 0, layer.size), Compression.GZIP, span_size=128 << 10).ztoc
    data = pack_ztoc(spoil(ztoc))
    blob = client.push_blob(reference, data)
    client.push_blob(reference, manifests.EMPTY_CONFIG)
    entry = manifests.ZtocEntry(
        manifests.Descriptor(manifests.COMPACT_ZTOC_MEDIA_TYPE, blob.digest, blob.size), layer.digest, layer.media_type
    )
    subject = manifests.Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
    index = manifests.write_index(manifests.SociIndex(manifests.IndexVersion.COMPACT, (entry,), subject=subject))
    client.push_manifest(reference.at(digest_of(index)), index, manifests.OCI_MANIFEST)
    kind = manifests.IndexVersion.COMPACT.value
    client.add_referrer(
        reference, manifest.digest, Descriptor(manifests.OCI_MANIFEST, digest_of(index), len(index), artifact_type=kind)
    )
    return replace(image, name=f"{target}:1")


def _client(registry: Registry, name: str, folder: Path | None = None) -> tuple[RegistryClient, ImageReference]:
    conf = (folder or Path("/tmp")) / f"edge-hostile-{os.getpid()}.conf"
    write_registries(conf, registry.address)
    return RegistryClient(Registries((conf,)), {}), parse_reference(f"{registry.address}/{name}")
