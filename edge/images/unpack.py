"""A complete layer becomes a plain directory: the files of its tree, with bytes that the whole layer's digests prove.

One pass: compressed bytes are hashed and inflated, the tar is hashed, read and cut into files. Nothing is trusted
before both digests are right and the tree is that of the tar: it came from an index, which whoever may push to the
registry may have made. So the caller unpacks beside and renames.
"""

import ctypes
import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from edge.errors import EdgeError, InvalidInputError, StoreError
from edge.files import store_error
from edge.images.soci.tar_scan import TarScanner
from edge.images.soci.values import FileMetadata
from edge.images.starts.pieces import Claims
from edge.images.tree import LayerTree, Record, build_tree

_PIECE: Final = 1 << 20
_GZIP_WINDOW: Final = 31
"""zlib's `windowBits` for a gzip member."""
_libc = ctypes.CDLL(None, use_errno=True)


class DamagedLayerError(EdgeError):
    """The bytes at hand are not the layer; what was fetched is looked through again."""


class FalseIndexError(DamagedLayerError):
    """The bytes are the layer, and its index describes another one."""


def unpack(  # noqa: PLR0913 - what a layer is
    blob: Path,
    tree_file: Path,
    target: Path,
    *,
    digest: str,
    diff_id: str,
    gzip: bool,
    claims: Claims | None = None,
) -> list[FileMetadata]:
    """Write a layer's files into `target`, an empty directory, sync it, and return its tar's members.

    Args:
        blob: The layer as the registry has it.
        tree_file: Its files, as its index has them.
        target: Where to.
        digest: `sha256:…` of the blob.
        diff_id: `sha256:…` of the uncompressed tar.
        gzip: Whether the blob is compressed.
        claims: What a start bundle said of the tar, and containers may have read.

    Raises:
        DamagedLayerError: A digest is wrong, or the blob does not inflate.
        FalseIndexError: The tree is not the tar's, or a bundle said otherwise than the tar.
        StoreError: The files cannot be written here.
    """
    whole = hashlib.sha256()
    pieces = _inflated(blob, whole, gzip=gzip)
    return unpack_pieces(
        pieces, tree_file, target, lambda diff: (("layer", whole, digest), ("tar", diff, diff_id)), claims
    )


def unpack_pieces(
    pieces: Iterable[bytes | memoryview],
    tree_file: Path,
    target: Path,
    proofs: "Callable[[hashlib._Hash], Iterable[tuple[str, hashlib._Hash, str]]]",
    claims: Claims | None = None,
) -> list[FileMetadata]:
    """Write a layer's files from its tar, and return its members, as `unpack`.

    Args:
        pieces: The tar, whole, in order; what it raises is raised.
        tree_file: As for `unpack`.
        target: As for `unpack`.
        proofs: Given the tar's digest, returns what has to have which digest.
        claims: As for `unpack`.

    Raises:
        EdgeError: As `unpack`.
    """
    try:
        tree = LayerTree(tree_file)
        _make_nodes(tree, target)
        scanner = TarScanner()
        writer = _Files(tree, target)
        diff = hashlib.sha256()
        position = 0
        try:
            for piece in pieces:
                diff.update(piece)
                scanner.feed(memoryview(piece))
                writer.take(position, piece)
                if claims is not None:
                    claims.take(position, piece)
                position += len(piece)
        except zlib.error as error:
            raise DamagedLayerError(f"{target.name} does not inflate: {error}") from error
        for what, made, wanted in proofs(diff):
            if f"sha256:{made.hexdigest()}" != wanted:
                raise DamagedLayerError(f"the {what} has digest sha256:{made.hexdigest()}, not {wanted}")
        scanner.finish()
        if build_tree(scanner.files) != tree_file.read_bytes():
            raise FalseIndexError("the index lists other files than the layer has")
        if claims is not None and claims.false is not None:
            raise FalseIndexError(f"its start bundle holds other bytes at {claims.false} of the tar than the layer has")
        writer.close()
        _finish_nodes(tree, target)
        _sync(target)
    except OSError as error:
        raise store_error(f"cannot unpack into {target}", error) from error
    return scanner.files


def _inflated(blob: Path, whole: "hashlib._Hash", *, gzip: bool) -> Iterator[bytes]:
    with blob.open("rb") as file:
        inflater = zlib.decompressobj(_GZIP_WINDOW)
        ended = True
        while piece := file.read(_PIECE):
            whole.update(piece)
            # Of this file once is enough: the page cache is for what containers read.
            os.posix_fadvise(file.fileno(), 0, file.tell(), os.POSIX_FADV_DONTNEED)
            if not gzip:
                yield piece
                continue
            while piece:
                if ended and not piece.strip(b"\0"):
                    break
                ended = False
                yield inflater.decompress(piece, _PIECE)
                piece = inflater.unconsumed_tail
                if inflater.eof:
                    piece = inflater.unused_data
                    inflater = zlib.decompressobj(_GZIP_WINDOW)
                    ended = True
        if gzip and not ended:
            yield inflater.flush()
            if not inflater.eof:
                raise DamagedLayerError(f"{blob} breaks off")


class _Files:
    """Cuts the tar into the tree's regular files, in one pass."""

    def __init__(self, tree: LayerTree, target: Path) -> None:
        records = (tree.record(number) for number in range(tree.count))
        self._files = sorted(
            ((record.offset, number) for number, record in enumerate(records) if _has_content(record, number)),
            reverse=True,
        )
        self._tree = tree
        self._target = os.fsencode(target)
        self._open = -1
        self._record: Record | None = None

    def take(self, position: int, piece: bytes | memoryview) -> None:
        """Take the tar's bytes from `position` on."""
        view = memoryview(piece)
        end = position + len(piece)
        while True:
            if self._record is None:
                if not self._files or self._files[-1][0] >= end:
                    return
                self._record = self._tree.record(self._files.pop()[1])
                path = _path(self._target, self._tree, self._record)
                self._open = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            record = self._record
            start = max(position, record.offset)
            stop = min(end, record.offset + record.size)
            _write_all(self._open, view[start - position : stop - position])
            if stop < record.offset + record.size:
                return
            os.close(self._open)
            self._record = None

    def close(self) -> None:
        """Say that the tar is at its end.

        Raises:
            DamagedLayerError: Files are missing.
        """
        if self._record is not None or self._files:
            raise DamagedLayerError("the layer ends before its last file does")


def _has_content(record: Record, number: int) -> bool:
    return stat.S_ISREG(record.mode) and record.inode == number and record.size > 0


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _path(target: bytes, tree: LayerTree, record: Record) -> bytes:
    inside = tree.path(record)
    return target + b"/" + inside if inside else target


def _make_nodes(tree: LayerTree, target: Path) -> None:
    root = os.fsencode(target)
    for number in range(1, tree.count):
        record = tree.record(number)
        folder = _path(root, tree, tree.record(record.parent))
        path = folder + b"/" + tree.name(record)
        if record.inode != number:
            owner = tree.record(record.inode)
            os.link(_path(root, tree, owner), path, follow_symlinks=False)
        elif stat.S_ISDIR(record.mode):
            os.mkdir(path, 0o700)  # noqa: PTH102 - a path of bytes, here and below
        elif stat.S_ISREG(record.mode):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        elif stat.S_ISLNK(record.mode):
            os.symlink(tree.target(record), path)  # noqa: PTH211
        else:
            minor = (record.device & 0xFF) | ((record.device >> 12) & 0xFFF00)
            os.mknod(path, stat.S_IFMT(record.mode) | 0o600, os.makedev((record.device >> 8) & 0xFFF, minor))


def _finish_nodes(tree: LayerTree, target: Path) -> None:
    """Owners first: changing one clears set-user-id bits and capabilities. A directory's time after its entries'."""
    root = os.fsencode(target)
    for number in range(tree.count - 1, -1, -1):
        record = tree.record(number)
        if record.inode != number:
            continue
        path = _path(root, tree, record)
        os.chown(path, record.uid, record.gid, follow_symlinks=False)
        if not stat.S_ISLNK(record.mode):
            os.chmod(path, stat.S_IMODE(record.mode))  # noqa: PTH101
        for name, value in tree.xattrs(record).items():
            _set_xattr(path, name, value)
        os.utime(path, ns=(record.modified, record.modified), follow_symlinks=False)


def _set_xattr(path: bytes, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except OSError as error:
        # As containers/storage: what this file system cannot keep is left out, but not overlayfs's own.
        if error.errno not in (errno.ENOTSUP, errno.EPERM) or name.startswith(b"trusted.overlay."):
            raise


def _sync(target: Path) -> None:
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise StoreError(f"cannot sync {target}: {os.strerror(number)}")
    finally:
        os.close(descriptor)


def check_kind(media_type: str) -> int:
    """Return a layer's compression as containers/storage numbers it: 0 none, 2 gzip.

    Raises:
        InvalidInputError: Another one, which cannot be served from here.
    """
    kind = media_type.rpartition(".")[2] if media_type.startswith("application/vnd.docker") else media_type
    if kind == "gzip" or kind.endswith("+gzip"):
        return 2
    if kind == "tar" or kind.endswith(".tar"):
        return 0
    raise InvalidInputError(f"layers of type {media_type or 'none'} cannot be served lazily")
