"""Layers made deterministically, each with the oddities that indexes have to get right."""

import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import Final

NOON: Final = 1_700_000_000


def text(seed: int, size: int) -> bytes:
    """Make compressible bytes that are the same everywhere."""
    chooser = random.Random(seed)
    words = [bytes(chooser.choices(b"abcdefghijklmnopqrstuvwxyz", k=chooser.randint(2, 12))) for _ in range(997)]
    made = io.BytesIO()
    while made.tell() < size:
        made.write(b" ".join(chooser.choices(words, k=4096)))
    return made.getvalue()[:size]


def noise(seed: int, size: int) -> bytes:
    """Make incompressible bytes that are the same everywhere."""
    return random.Random(seed).randbytes(size)


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """Make a tar member's header."""
    info = tarfile.TarInfo(name)
    info.type, info.mtime, info.mode = kind, NOON, 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(form: int, *members: tuple[tarfile.TarInfo, bytes], padded: bool = True) -> bytes:
    """Make a tar from headers and contents."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for info, content in members:
            info.size = len(content) or info.size
            archive.addfile(info, io.BytesIO(content))
        end = archive.offset + 1024
    return made.getvalue() if padded else made.getvalue()[:end]


def small_files(form: int) -> bytes:
    """Make every kind of member, long names, odd owners and times, whiteouts, xattrs."""
    deep = "usr/share/" + "/".join(["a-rather-long-directory-name"] * 8)
    pax = {
        "mtime": "1700000000.123456789",
        "SCHILY.xattr.user.mime": "text/plain",
        "SCHILY.xattr.security.capability": "\x01\x02",
    }
    extra: list[tuple[tarfile.TarInfo, bytes]] = []
    if form == tarfile.PAX_FORMAT:
        extra = [
            (member("usr/bin/ping", pax_headers=pax, mode=0o4755), text(3, 70_000)),
            (member("früh/naïve", uname="jörg", uid=3_000_000, mtime=NOON + 0.25), b"x"),
            (member("old", mtime=-5.5), b""),
        ]
    if form == tarfile.GNU_FORMAT:
        extra = [(member("big-owner", uid=1 << 40, gid=1 << 33, mtime=-5), b"y")]
    return tar(
        form,
        (member("./", tarfile.DIRTYPE, mode=0o755), b""),
        (member("etc/", tarfile.DIRTYPE, mode=0o1777, uname="root", gname="root"), b""),
        (member("etc/passwd", uid=1000, gid=100), text(1, 1000)),
        (member("etc/empty"), b""),
        (member("etc/link", tarfile.SYMTYPE, linkname="../" + "x" * 150), b""),
        (member("etc/hard", tarfile.LNKTYPE, linkname="etc/passwd"), b""),
        (member("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (member("dev/sda", tarfile.BLKTYPE, devmajor=8), b""),
        (member("run/fifo", tarfile.FIFOTYPE), b""),
        (member("var/.wh.gone"), b""),
        (member("opt/.wh..wh..opq"), b""),
        (member(deep + "/file"), text(2, 600_000)),
        *extra,
        *[(member(f"lib/{i:04}", mtime=NOON + i % 7), text(i, i * 7 % 900)) for i in range(400)],
        (member("blob"), noise(4, 300_000)),
        (member("zeros"), bytes(2_000_000)),
        (member("etc/passwd"), b"the last one wins\n"),
    )


def deflate(data: bytes, level: int, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Compress to one gzip member."""
    maker = zlib.compressobj(level, zlib.DEFLATED, 31, 8, strategy)
    return maker.compress(data) + maker.flush()


def members(data: bytes, size: int, level: int = 6) -> bytes:
    """Compress to many gzip members, as mgzip does."""
    return b"".join(deflate(data[at : at + size], level) for at in range(0, len(data), size))


def flushed(data: bytes, size: int) -> bytes:
    """Compress with empty blocks in between, as pigz does."""
    maker = zlib.compressobj(6, zlib.DEFLATED, 31)
    parts = []
    for at in range(0, len(data), size):
        parts += [maker.compress(data[at : at + size]), maker.flush(zlib.Z_SYNC_FLUSH)]
    return b"".join(parts) + maker.flush()


def named(data: bytes) -> bytes:
    """Compress with a file name in the gzip header."""
    made = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 9, made, mtime=NOON) as file:
        file.write(data)
    return made.getvalue()


def _plain(data: bytes) -> bytes:
    return data


def layers() -> Iterator[tuple[str, bytes]]:
    """Make the layers whose zTOCs were compared with those of the `soci` tool."""
    tars: dict[str, bytes] = {
        "pax": small_files(tarfile.PAX_FORMAT),
        "gnu": small_files(tarfile.GNU_FORMAT),
        "empty": tar(tarfile.USTAR_FORMAT),
        "unpadded": tar(tarfile.USTAR_FORMAT, (member("a"), text(9, 5000)), padded=False),
        "large": tar(tarfile.PAX_FORMAT, (member("a"), text(10, 9_000_000)), (member("b"), noise(11, 3_000_000))),
    }
    ways: dict[str, Callable[[bytes], bytes]] = {
        "1": lambda data: deflate(data, 1),
        "6": lambda data: deflate(data, 6),
        "9": lambda data: deflate(data, 9),
        "0": lambda data: deflate(data, 0),
        "huffman": lambda data: deflate(data, 6, zlib.Z_HUFFMAN_ONLY),
        "fixed": lambda data: deflate(data, 6, zlib.Z_FIXED),
        "members": lambda data: members(data, 100_003),
        "flushed": lambda data: flushed(data, 50_021),
        "named": named,
        "plain": _plain,
    }
    for tar_name, data in tars.items():
        for way_name, way in ways.items():
            yield f"{tar_name}-{way_name}", way(data)


def pieces(data: bytes, size: int = 65_521) -> Iterator[bytes]:
    """Cut a layer as it might arrive."""
    return (data[at : at + size] for at in range(0, len(data), size))
