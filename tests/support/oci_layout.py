"""OCI image layouts written by hand, so that a test has an image with any command in a moment.

https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.registry import Registry

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
APPLETS = ("sh", "sleep", "echo", "cat", "ls", "true", "false", "httpd", "nc", "wget", "kill", "date", "dd", "env")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """One blob of the layout."""

    media_type: str
    digest: str
    size: int
    more: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **self.more}


class OciLayout:
    """A layout being written into `folder`: layers first, then images, then `finish`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)

    def blob(self, data: bytes, media_type: str, **more: object) -> Descriptor:
        """Add a blob."""
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs" / "sha256" / digest).write_bytes(data)
        return Descriptor(media_type, f"sha256:{digest}", len(data), more)

    def image(self, layers: Sequence[bytes], config: Mapping[str, object], architecture: str) -> Descriptor:
        """Add an image of uncompressed tar layers; `config` is the execution part (Cmd, Entrypoint, Env, …)."""
        blobs = [self.blob(gzip.compress(layer, compresslevel=1, mtime=0), LAYER) for layer in layers]
        document = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(_json(document), CONFIG).to_json(),
            "layers": [one.to_json() for one in blobs],
        }
        return self.blob(_json(manifest), MANIFEST, platform={"os": "linux", "architecture": architecture})

    def finish(self, *images: Descriptor, tag: str = "latest") -> None:
        """Write the entry points; several images become one multi-architecture image."""
        entry = images[0]
        if len(images) > 1:
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [one.to_json() for one in images]}
            entry = self.blob(_json(index), INDEX)
        named = {**entry.to_json(), "annotations": {"org.opencontainers.image.ref.name": tag}}
        (self.folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
        (self.folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))

    def push(self, registry: Registry, name: str, tag: str = "latest") -> str:
        """Copy it into the registry; return the digest it has there."""
        with tempfile.TemporaryDirectory() as folder:
            digest = Path(folder) / "digest"
            done = subprocess.run(
                (
                    *("skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false", "--digestfile", str(digest)),
                    *(f"oci:{self.folder}:{tag}", f"docker://{registry.address}/{name}:{tag}"),
                ),
                check=False,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            return digest.read_text().strip()


def busybox_image(
    registry: Registry,
    name: str,
    command: Sequence[str],
    *,
    tag: str = "1",
    files: Mapping[str, bytes] | None = None,
    **config: object,
) -> str:
    """Push an image of busybox that runs `command`; return its reference, `127.0.0.1:PORT/name:tag`.

    Args:
        registry: A running one.
        name: The repository.
        command: Its `Cmd`; `/bin/sh` and the other `APPLETS` are there.
        tag: Its tag.
        files: More files, by their path in the image; in a layer of their own.
        config: More of the image's execution configuration: `Entrypoint`, `Env`, `User`, `Volumes`, …
    """
    with tempfile.TemporaryDirectory() as folder:
        layout = OciLayout(Path(folder) / "layout")
        layers = [busybox_layer(), *([layer(files)] if files else [])]
        execution = {"Cmd": list(command), "Env": ["PATH=/bin"], **config}
        layout.finish(layout.image(layers, execution, host_architecture()), tag=tag)
        layout.push(registry, name, tag)
    return f"{registry.address}/{name}:{tag}"


def busybox_layer() -> bytes:
    """A layer with the host's static busybox as /bin/busybox and a link for each of `APPLETS`."""
    busybox = shutil.which("busybox", path="/bin:/usr/bin")
    assert busybox is not None, "busybox is not installed (apt-get install busybox-static)"
    return layer({"bin/busybox": Path(busybox).read_bytes()}, {f"bin/{name}": "busybox" for name in APPLETS})


def layer(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """A tar of executable files and symbolic links, the same bytes each time; folders come of themselves."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name.removeprefix("/"))
            entry.size, entry.mode = len(data), 0o755
            tar.addfile(entry, io.BytesIO(data))
        for name, target in sorted((links or {}).items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


def host_architecture() -> str:
    """This host's, in OCI's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _json(document: object) -> bytes:
    return json.dumps(document, sort_keys=True).encode()
