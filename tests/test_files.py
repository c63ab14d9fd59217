import errno
import os
from pathlib import Path

import pytest

from edge.errors import StoreError, StoreFullError
from edge.files import store_error, write_atomically


def test_a_file_is_written_with_its_mode_whatever_it_had(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_atomically(path, b"new", 0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o600)
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "ca.crt", b"", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "ca.crt").stat().st_mode & 0o777 == 0o644


def test_a_failed_write_leaves_the_former_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "taken"
    target.mkdir()
    (target / "inside").write_bytes(b"kept")
    with pytest.raises(StoreError, match=r"cannot write .*taken"):
        write_atomically(target, b"new")
    assert (target / "inside").read_bytes() == b"kept"
    assert [found.name for found in tmp_path.iterdir()] == ["taken"]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        write_atomically(tmp_path / "away" / "key", b"")


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"victim")
    (tmp_path / "link").symlink_to("victim")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "victim").read_bytes() == b"victim"
    assert not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_or_read_only_disk_may_recover(number: int) -> None:
    assert isinstance(store_error("cannot write x", OSError(number, "why")), StoreFullError)


def test_another_failure_does_not_recover_by_itself() -> None:
    assert not isinstance(store_error("cannot write x", OSError(errno.EACCES, "why")), StoreFullError)
