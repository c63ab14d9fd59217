"""The files of an OCI image layout, in a folder or in a tar that is not unpacked."""

import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from edge.errors import InvalidInputError, NotFoundError

_PIECE: Final = 512 * 1024
_BLOCK: Final = 512
"""A tar is made of these (POSIX.1-2001 pax)."""
_MAXIMUM_MEMBERS: Final = 100_000
_MAXIMUM_EXTENSION: Final = 64 * 1024
"""Of a pax header: a layout's names are short, all it may need is a size over 8 GiB."""
_PAX_SIZE: Final = re.compile(rb"(?:^|\n)\d+ size=(\d{1,18})\n")
_NAME: Final = re.compile(r"(?:\./)?(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})", re.ASCII)
_COMPRESSED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd", b"\xfd7": "xz", b"BZ": "bzip2"}


class LayoutFiles(Protocol):
    """Named files: `oci-layout`, `index.json`, `blobs/sha256/<hex>`.

    Attributes:
        transport: `oci` or `oci-archive`, as containers-transports(5) names it.
        path: Absolute.
    """

    transport: str
    path: Path

    def size(self, name: str) -> int | None:
        """Return a file's bytes; `None` when it is not there."""
        ...

    def pieces(self, name: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield exactly `size` bytes of a file from `offset` on.

        Raises:
            InvalidInputError: They are not there or cannot be read.
        """
        ...


class FolderFiles:
    """A layout directory."""

    transport = "oci"

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        if not self.path.is_dir():
            raise NotFoundError(f"there is no folder {path}")

    def size(self, name: str) -> int | None:
        """Return a file's bytes; `None` when it is not there."""
        try:
            return (self.path / name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInputError(f"cannot read {self.path / name}: {error.strerror}") from error

    def pieces(self, name: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield exactly `size` bytes of a file from `offset` on; raises as the protocol says."""
        return _read(self.path / name, str(self.path / name), offset, size)


class ArchiveFiles:
    """A layout in an uncompressed tar, as `skopeo copy … oci-archive:FILE` writes it. Its members are located once."""

    transport = "oci-archive"

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            with self.path.open("rb") as file:
                self._members = _locate(file, self.path)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no file {path}") from error
        except OSError as error:
            raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error

    def size(self, name: str) -> int | None:
        """Return a file's bytes; `None` when it is not there."""
        found = self._members.get(name)
        return found[1] if found is not None else None

    def pieces(self, name: str, offset: int, size: int) -> Iterator[bytes]:
        """Yield exactly `size` bytes of a file from `offset` on; raises as the protocol says."""
        start, whole = self._members.get(name, (0, 0))
        if offset + size > whole:
            raise InvalidInputError(f"{self.path}: {name} ends after {whole} bytes")
        return _read(self.path, f"{self.path}, {name}", start + offset, size)


def _read(path: Path, what: str, offset: int, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            left = size
            while left:
                piece = file.read(min(_PIECE, left))
                if not piece:
                    raise InvalidInputError(f"{what} ends {left} bytes early", hint="Copy it again.")
                left -= len(piece)
                yield piece
    except OSError as error:
        raise InvalidInputError(f"cannot read {what}: {error.strerror}") from error


def _locate(file: BinaryIO, path: Path) -> Mapping[str, tuple[int, int]]:
    """Return offset and size of each member that counts; the last of a name wins, as when unpacking."""
    found: dict[str, tuple[int, int]] = {}
    stated: int | None = None
    end = file.seek(0, 2)
    at = file.seek(0)
    for _ in range(_MAXIMUM_MEMBERS):
        header = _header(file.read(_BLOCK), path)
        if header is None:
            return found
        at += _BLOCK
        size = header.size if stated is None else stated
        if at + size > end:
            raise InvalidInputError(f"{path} breaks off in {header.name[:100]!r}", hint="Copy it again.")
        stated = _stated_size(file, header, path)
        name = _NAME.fullmatch(header.name)
        if name is not None and header.isreg():
            found[name[1]] = (at, size)
        at = file.seek(at + size + -size % _BLOCK)
    raise InvalidInputError(f"{path} has more than {_MAXIMUM_MEMBERS} members")


def _header(block: bytes, path: Path) -> tarfile.TarInfo | None:
    if not block.strip(b"\0"):
        return None
    if (kind := _COMPRESSED.get(block[:2])) is not None:
        raise InvalidInputError(f"{path} is compressed with {kind}", hint=f"Uncompress it first ({kind} -d).")
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise InvalidInputError(f"{path} is no tar archive: {error}", hint="Copy it again.") from error
    if header.size < 0:
        raise InvalidInputError(f"{path}: {header.name[:100]!r} has a negative size")
    return header


def _stated_size(file: BinaryIO, header: tarfile.TarInfo, path: Path) -> int | None:
    """Return the size that a pax header states for the member behind it."""
    if header.type != tarfile.XHDTYPE:
        return None
    if header.size > _MAXIMUM_EXTENSION:
        raise InvalidInputError(f"{path} has a pax header of {header.size} bytes; {_MAXIMUM_EXTENSION} are the most")
    sizes: list[bytes] = _PAX_SIZE.findall(file.read(header.size))
    return int(sizes[-1]) if sizes else None
