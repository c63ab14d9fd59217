"""What a member means is what Go's `archive/tar` makes of it, because `soci` builds its indexes with that."""

import io
import tarfile
from collections.abc import Callable

import pytest

from edge.errors import InvalidInputError
from edge.images.soci.tar_scan import TarScanner
from edge.images.soci.values import FileMetadata, FileType
from tests.images.soci.layers import NOON, member, noise, small_files, tar, text


def scan(data: bytes) -> list[FileMetadata]:
    scanner = TarScanner()
    scanner.feed(memoryview(data))
    scanner.finish()
    return scanner.files


def one(info: tarfile.TarInfo, content: bytes = b"", form: int = tarfile.PAX_FORMAT) -> FileMetadata:
    (found,) = scan(tar(form, (info, content)))
    return found


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidInputError) as caught:
        scan(data)
    return str(caught.value)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_pythons_own_reader_finds(form: int) -> None:
    data = small_files(form)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as archive:
        expected = [
            (entry.name, entry.linkname, entry.mode, entry.uid & 0xFFFF_FFFF, entry.gid & 0xFFFF_FFFF, entry.uname)
            for entry in archive
        ]
    found = [(e.name.rstrip("/"), e.linkname, e.mode, e.uid, e.gid, e.uname) for e in scan(data)]
    assert found == expected


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_targets_longer_than_a_header_are_whole(form: int) -> None:
    name, target = "deep/" * 60 + "file", "../" * 60 + "target"
    found = one(member(name, tarfile.SYMTYPE, linkname=target), form=form)
    assert (found.name, found.linkname) == (name, target)


def test_a_name_that_is_not_utf_8_is_kept() -> None:
    found = one(member("caf\udce9"), form=tarfile.GNU_FORMAT)
    assert found.name.encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (tarfile.REGTYPE, FileType.REGULAR),
        (tarfile.AREGTYPE, FileType.REGULAR),
        (tarfile.DIRTYPE, FileType.DIRECTORY),
        (tarfile.SYMTYPE, FileType.SYMLINK),
        (tarfile.LNKTYPE, FileType.HARDLINK),
        (tarfile.CHRTYPE, FileType.CHARACTER),
        (tarfile.BLKTYPE, FileType.BLOCK),
        (tarfile.FIFOTYPE, FileType.FIFO),
    ],
)
def test_each_kind_of_member_has_its_type(kind: bytes, expected: FileType) -> None:
    assert one(member("a", kind, linkname="b")).type is expected


def test_a_device_has_its_numbers() -> None:
    found = one(member("dev/sda1", tarfile.BLKTYPE, devmajor=8, devminor=1))
    assert (found.devmajor, found.devminor) == (8, 1)


def test_extended_attributes_are_pax_records() -> None:
    info = member("ping", pax_headers={"SCHILY.xattr.security.capability": "\x01\x00", "comment": "no attribute"})
    assert one(info).xattrs == {"security.capability": b"\x01\x00"}


def test_times_have_nanoseconds_and_may_be_before_1970() -> None:
    def modified(time: str) -> int:
        return one(member("a", pax_headers={"mtime": time})).modified

    assert modified("1700000000.123456789") == NOON * 1_000_000_000 + 123_456_789
    assert modified("-5.5") == -5_500_000_000
    assert modified("") == NOON * 1_000_000_000


def test_a_pax_size_moves_the_member_after_it() -> None:
    data = bytearray(tar(tarfile.PAX_FORMAT, (member("a", pax_headers={"size": "700"}), b""), (member("b"), b"x")))
    at = data.index(b"b".ljust(100, b"\0"))
    data[at:at] = bytes(1024)
    first, second = scan(bytes(data))
    assert (first.size, second.offset) == (700, first.offset + 1024 + 512)


def test_a_size_on_a_link_is_no_data() -> None:
    link = member("a", tarfile.LNKTYPE, linkname="z", size=4000)
    linked = link.tobuf(tarfile.GNU_FORMAT) + tar(tarfile.GNU_FORMAT, (member("b"), b"x"))
    first, second = scan(linked)
    assert (first.type, first.size) == (FileType.HARDLINK, 4000)
    assert second.offset == first.offset + 512


def test_a_signed_checksum_of_old_writers_is_accepted() -> None:
    data = bytearray(tar(tarfile.GNU_FORMAT, (member("caf\udce9"), b"")))
    field = slice(148, 156)
    signed = sum(byte - 256 if byte > 127 else byte for byte in (*data[:148], *b" " * 8, *data[156:512]))
    data[field] = b"%06o\0 " % signed
    assert scan(bytes(data))


def test_the_size_of_the_tar_ends_with_its_end_mark() -> None:
    data = tar(tarfile.GNU_FORMAT, (member("a"), b"x"))
    scanner = TarScanner()
    scanner.feed(memoryview(data + bytes(100_000)))
    scanner.finish()
    assert scanner.end == 512 + 512 + 1024
    assert len(data) > scanner.end


def test_a_tar_without_an_end_mark_is_read_as_soci_reads_it() -> None:
    data = tar(tarfile.GNU_FORMAT, (member("a"), b"x"), padded=False)
    assert len(scan(data[:-1024])) == len(scan(data[:-512])) == 1


def _hostile_name(name: bytes, kind: bytes = b"0", link: bytes = b"") -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "y"
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[0:100] = name.ljust(100, b"\0")
    block[157:257] = link.ljust(100, b"\0")
    block[148:156] = b"%06o\0 " % sum((*block[:148], *b" " * 8, *block[156:]))
    return bytes(block) + bytes(1024)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (_hostile_name(b"../etc/passwd"), "leads out"),
        (_hostile_name(b"a/../../b"), "leads out"),
        (_hostile_name(b".."), "leads out"),
        (_hostile_name(b"/etc/passwd"), "absolute"),
        (_hostile_name(b""), "empty"),
        (_hostile_name(b"a", b"1", b"../../etc/shadow"), "hard link"),
        (_hostile_name(b"a", b"1", b"/etc/shadow"), "hard link"),
        (_hostile_name(b"a", b"1", b""), "hard link"),
    ],
)
def test_a_member_that_leaves_the_layer_is_refused(data: bytes, why: str) -> None:
    assert why in refusal(data)


@pytest.mark.parametrize("name", [b"a..b", b"..a/b", b"a/...", b"./a", b"a//b", b".wh..wh..opq"])
def test_a_name_that_only_looks_like_leaving_is_accepted(name: bytes) -> None:
    assert scan(_hostile_name(name))[0].name.encode() == name


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../../x", b"a"])
def test_a_symbolic_link_may_point_anywhere(target: bytes) -> None:
    assert scan(_hostile_name(b"a", b"2", target))[0].linkname.encode() == target


@pytest.mark.parametrize(
    ("kind", "what"),
    [(b"S", "sparse"), (b"7", "contiguous"), (b"g", "global PAX"), (b"V", "type is b'V'"), (b"\xff", "type is")],
)
def test_a_member_that_a_ztoc_cannot_describe_is_refused(kind: bytes, what: str) -> None:
    assert what in refusal(_hostile_name(b"a", kind))


def test_a_pax_sparse_file_is_refused() -> None:
    info = member("a", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b"})
    assert "sparse" in refusal(tar(tarfile.PAX_FORMAT, (info, b"x")))


def _with(change: Callable[[bytearray], object]) -> bytes:
    data = bytearray(tar(tarfile.GNU_FORMAT, (member("a"), text(1, 3000)), (member("b"), b"y"), padded=False))
    change(data)
    return bytes(data)


def _pax(body: bytes) -> bytes:
    data = tar(tarfile.PAX_FORMAT, (member("a" * 200), b"x"))
    return data[:512] + body.ljust(512, b"\0")[:512] + data[1024:]


@pytest.mark.parametrize(
    "data",
    [
        noise(1, 5000),
        _with(lambda data: data.__setitem__(0, 1)),
        _with(lambda data: data.__setitem__(slice(124, 136), b"99999999999\0")),
        _with(lambda data: data.__delitem__(slice(2000, None))),
        _with(lambda data: data.__delitem__(slice(4700, None))),
        _with(lambda data: data.__setitem__(-1, 1)),
        _pax(b"no length"),
        _pax(b"999999999999999999999 path=a\n"),
        _pax(b"-5 path=a\n"),
        _pax(b"4 a=\n"),
        _pax(b"13 path=a\0b\n"),
        _pax(b"12 mtime=x1\n"),
    ],
)
def test_what_is_no_tar_is_refused(data: bytes) -> None:
    assert "not a readable tar" in refusal(data)


@pytest.mark.parametrize("kind", [b"x", b"L", b"K"])
def test_an_extended_header_larger_than_readers_accept_is_refused(kind: bytes) -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, (1 << 20) + 1
    assert "extended header" in refusal(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
