"""OCI image layouts: read from a folder or an archive, written into a folder.

Format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.errors import InvalidInputError, NotFoundError
from edge.images.oci.documents import (
    MAXIMUM_CONFIGURATION,
    MAXIMUM_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Configuration,
    Descriptor,
    Index,
    Manifest,
    digest_of,
    parse_configuration,
    parse_manifest,
)
from edge.images.oci.layout_files import ArchiveFiles, FolderFiles, LayoutFiles
from edge.images.oci.references import ImageReference

REFERENCE_NAME: Final = "org.opencontainers.image.ref.name"
LAYOUT_VERSION: Final = "1.0.0"
_MAXIMUM_MARK: Final = 4096
_DAMAGED: Final = "The copy is damaged: make it again."


class OciLayout:
    """Reads a layout as `RegistryClient` reads a registry. Usable from any thread.

    Of the references given to its methods only tag and digest count; without either they mean the only image there is.

    Raises:
        InvalidInputError: It is no layout.
    """

    def __init__(self, files: LayoutFiles) -> None:
        self._files = files
        self.where = f"{files.transport}:{files.path}"
        check_mark(self._small("oci-layout", _MAXIMUM_MARK), self.where)

    @classmethod
    def at(cls, path: Path) -> "OciLayout":
        """Open a layout: a folder, or else an archive.

        Raises:
            NotFoundError: There is nothing.
            InvalidInputError: It is no layout.
        """
        return cls(FolderFiles(path) if path.is_dir() else ArchiveFiles(path))

    def reference(self, tag: str = "") -> ImageReference:
        """Name an image of this layout."""
        return ImageReference(f"{self._files.transport}:", str(self._files.path).removeprefix("/"), tag)

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what `index.json` lists."""
        found = parse_manifest(self._small("index.json", MAXIMUM_MANIFEST), OCI_INDEX)
        if not isinstance(found, Index):
            raise InvalidInputError(f"{self.where}: index.json lists no manifests")
        return tuple(descriptor for descriptor, _ in found.manifests)

    def manifest(self, reference: ImageReference) -> Manifest | Index:
        """Return the manifest or index a reference means, verified.

        Raises:
            NotFoundError: There is none.
            InvalidInputError: It is malformed, or has another digest.
        """
        digest = reference.digest or self._entry(reference.tag).digest
        data = self._small(_path(digest), MAXIMUM_MANIFEST)
        self._check(data, digest)
        # `mediaType` is optional in OCI's documents; an index is told by its `manifests`.
        return parse_manifest(data, OCI_MANIFEST)

    def image(self, reference: ImageReference, architecture: str) -> Manifest:
        """Return the manifest for an architecture; raises as `manifest`, and ImagePullError if there is none for it."""
        found = self.manifest(reference)
        if isinstance(found, Index):
            found = self.manifest(reference.at(found.choose(architecture).digest))
        if isinstance(found, Index):
            raise InvalidInputError(f"{reference} is an index of indexes")
        return found

    def configuration(self, reference: ImageReference, manifest: Manifest) -> Configuration:
        """Return an image's configuration; raises as `blob`."""
        return parse_configuration(self.blob(reference, manifest.config, MAXIMUM_CONFIGURATION))

    def has(self, digest: str) -> bool:
        """Say whether a blob is there."""
        return self._files.size(_path(digest)) is not None

    def blob(self, reference: ImageReference, blob: Descriptor, most: int) -> bytes:
        """Return a blob of up to `most` bytes, verified.

        Raises:
            NotFoundError: It is not there.
            InvalidInputError: It is larger than `most` or has another size or digest.
        """
        if blob.size > most:
            raise InvalidInputError(f"blob {blob.digest} has {blob.size} bytes; {most} are the most")
        data = b"".join(self.chunks(reference, blob, 0, blob.size))
        self._check(data, blob.digest)
        return data

    def chunks(self, reference: ImageReference, blob: Descriptor, offset: int, size: int) -> Iterator[bytes]:
        """Yield `size` bytes of a blob from `offset` on, unverified.

        Raises:
            NotFoundError: It is not there.
            InvalidInputError: It has another size.
        """
        del reference
        found = self._size(_path(blob.digest), f"blob {blob.digest}")
        if found != blob.size:
            raise InvalidInputError(
                f"{self.where}: blob {blob.digest} has {found} bytes, not {blob.size}", hint=_DAMAGED
            )
        return self._files.pieces(_path(blob.digest), offset, size)

    def referrers(self, reference: ImageReference, digest: str, artifact_type: str) -> tuple[Descriptor, ...]:
        """Return the artifacts of a type that refer to a manifest, of those listed in `index.json`; as `manifest`."""
        del reference
        fitting = [entry for entry in self.entries() if entry.artifact_type == artifact_type]
        return tuple(entry for entry in fitting if self._subject(entry) == digest)

    def _subject(self, entry: Descriptor) -> str:
        data = self._small(_path(entry.digest), MAXIMUM_MANIFEST)
        self._check(data, entry.digest)
        parse_manifest(data, OCI_MANIFEST)
        subject = json.loads(data).get("subject")
        return str(subject.get("digest", "")) if isinstance(subject, dict) else ""

    def _entry(self, tag: str) -> Descriptor:
        entries = [entry for entry in self.entries() if not entry.artifact_type]
        fitting = [entry for entry in entries if not tag or entry.annotations.get(REFERENCE_NAME) == tag]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(entry.annotations.get(REFERENCE_NAME, entry.digest) for entry in entries[:20])
        if fitting and not tag:
            raise InvalidInputError(f"{self.where} has several images: {names}", hint=f"Name one: {self.where}:NAME.")
        if fitting:
            raise InvalidInputError(f"{self.where} lists {tag} {len(fitting)} times")
        raise NotFoundError(f"{self.where} has no image {tag}".rstrip(), hint=f"It has: {names or 'none'}.")

    def _size(self, name: str, what: str) -> int:
        found = self._files.size(name)
        if found is None:
            raise NotFoundError(f"{self.where} has no {what}")
        return found

    def _small(self, name: str, most: int) -> bytes:
        size = self._size(name, name)
        if size > most:
            raise InvalidInputError(f"{self.where}: {name} has {size} bytes; {most} are the most")
        return b"".join(self._files.pieces(name, 0, size))

    def _check(self, data: bytes, digest: str) -> None:
        if (found := digest_of(data)) != digest:
            raise InvalidInputError(f"{self.where}: blob {digest} has digest {found}", hint=_DAMAGED)


def check_mark(data: bytes, where: str) -> None:
    """Check the file `oci-layout`.

    Raises:
        InvalidInputError: It names another version of layouts, or none.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where}: oci-layout is not JSON: {error}") from error
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if version != LAYOUT_VERSION:
        raise InvalidInputError(f"{where} is a layout of version {version}; {LAYOUT_VERSION} is known")


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
