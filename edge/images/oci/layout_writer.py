"""OCI image layouts, written: blobs into a folder, and a folder into an archive.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

import hashlib
import json
import os
import secrets
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from edge.errors import InvalidInputError
from edge.files import store_error, sync_folder, write_atomically
from edge.images.oci.documents import MAXIMUM_MANIFEST, OCI_INDEX, Descriptor, digest_of, parse_manifest
from edge.images.oci.layout import LAYOUT_VERSION, REFERENCE_NAME, check_mark

_MODE: Final = 0o644


class LayoutWriter:
    """Adds to the layout in a folder, which is made if it is not there. One writer at a time.

    A crash leaves the layout as it was, or with blobs that nothing lists yet.

    Raises:
        InvalidInputError: The folder holds something else.
        StoreError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._blobs = self.folder / "blobs" / "sha256"
        try:
            if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / "oci-layout").exists():
                raise InvalidInputError(
                    f"{folder} holds other files and no OCI layout", hint="Name an empty or a new folder."
                )
            self._blobs.mkdir(parents=True, exist_ok=True)
            if (self.folder / "oci-layout").exists():
                check_mark((self.folder / "oci-layout").read_bytes(), str(folder))
        except OSError as error:
            raise store_error(f"cannot write into {folder}", error) from error
        if not (self.folder / "index.json").exists():
            self._write_index({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
        write_atomically(self.folder / "oci-layout", json.dumps({"imageLayoutVersion": LAYOUT_VERSION}).encode(), _MODE)

    def add(self, data: bytes, media_type: str = "") -> Descriptor:
        """Add a blob; return its descriptor."""
        found = Descriptor(media_type, digest_of(data), len(data))
        path = self._blobs / found.digest.removeprefix("sha256:")
        # What is there under the right name may still be the rest of a damaged copy: written anew.
        write_atomically(path, data, _MODE)
        return found

    def add_pieces(self, blob: Descriptor, pieces: Iterable[bytes]) -> None:
        """Add a blob of any size from its pieces.

        Raises:
            InvalidInputError: They are another blob; nothing was added.
            StoreError: It cannot be written.
        """
        path = self._blobs / blob.digest.removeprefix("sha256:")
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            size, digest = _write_pieces(temporary, pieces)
            if (size, digest) != (blob.size, blob.digest):
                raise InvalidInputError(f"{size} bytes with digest {digest} came for blob {blob.digest}")
            temporary.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise store_error(f"cannot write {path}", error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def list_manifest(self, manifest: Descriptor, name: str = "", instead_of: Collection[str] = ()) -> None:
        """List a manifest in `index.json`, by a name; what had this name or digest there before is listed no more.

        Args:
            manifest: Its descriptor.
            name: Empty for none.
            instead_of: Digests of what else is listed no more.
        """
        path = self.folder / "index.json"
        data = path.read_bytes() if path.stat().st_size <= MAXIMUM_MANIFEST else b""
        parse_manifest(data, OCI_INDEX)
        document = json.loads(data)
        entry: dict[str, Any] = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size}
        entry |= {"artifactType": manifest.artifact_type} if manifest.artifact_type else {}
        entry |= {"annotations": {REFERENCE_NAME: name}} if name else {}
        listed = [one for one in document["manifests"] if one["digest"] not in instead_of]
        kept = [one for one in listed if not _replaces(entry, one)]
        self._write_index(document | {"manifests": [*kept, entry]})

    def _write_index(self, document: dict[str, Any]) -> None:
        write_atomically(self.folder / "index.json", json.dumps(document, separators=(",", ":")).encode(), _MODE)


def _replaces(entry: dict[str, Any], other: dict[str, Any]) -> bool:
    name, before = ((one.get("annotations") or {}).get(REFERENCE_NAME) for one in (entry, other))
    return (bool(name) and name == before) or (entry["digest"] == other.get("digest") and before in (None, name))


def _write_pieces(path: Path, pieces: Iterable[bytes]) -> tuple[int, str]:
    found, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        os.fchmod(file.fileno(), _MODE)
        for piece in pieces:
            found.update(piece)
            size += len(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return size, f"sha256:{found.hexdigest()}"


def write_archive(folder: Path, archive: Path) -> None:
    """Write a layout's folder as an archive (`oci-archive:`); equal folders make equal archives.

    Raises:
        StoreError: It cannot be read or written; no archive remains, or the former one.
    """
    temporary = archive.with_name(f".{archive.name}.{secrets.token_hex(6)}.tmp")
    blobs = sorted(path for path in (folder / "blobs" / "sha256").iterdir() if not path.name.startswith("."))
    try:
        with temporary.open("xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for path in (folder / "oci-layout", folder / "index.json", *blobs):
                    _add_file(tar, path, str(path.relative_to(folder)))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(archive)
        sync_folder(archive.absolute().parent)
    except OSError as error:
        raise store_error(f"cannot write {archive}", error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _add_file(tar: tarfile.TarFile, path: Path, name: str) -> None:
    with path.open("rb") as file:
        info = tarfile.TarInfo(name)
        info.size, info.mode = os.fstat(file.fileno()).st_size, _MODE
        tar.addfile(info, file)
