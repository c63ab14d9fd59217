"""The descriptor store by itself: its bounds, and that nothing it refuses stays open."""

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import InvalidInputError
from edge.fd_store import MAX_DESCRIPTORS, MAX_UNIX_PATH, FdStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FdStore]:
    store = FdStore(tmp_path / "s")
    yield store
    store.close()


def send(store: FdStore, text: str, *descriptors: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        sender.sendmsg([text.encode()], [rights], 0, str(store.path))
    store.receive()


def is_held_elsewhere(read_end: int) -> bool:
    """Say whether anybody still has the pipe's write end open."""
    os.set_blocking(read_end, False)
    try:
        return os.read(read_end, 1) != b""
    except BlockingIOError:
        return True


@pytest.mark.parametrize("text", ["", "READY=1", "FDSTORE=1\nFDNAME=a:b", "FDSTORE=1\nFDNAME="])
def test_a_refused_descriptor_is_closed(store: FdStore, text: str) -> None:
    read, write = os.pipe()
    send(store, text, write)
    os.close(write)
    assert store.descriptors() == ()
    assert not is_held_elsewhere(read)
    os.close(read)


def test_a_removed_descriptor_is_closed_and_the_others_stay(store: FdStore) -> None:
    read, write = os.pipe()
    send(store, "FDSTORE=1\nFDNAME=a", write)
    send(store, "FDSTORE=1\nFDNAME=b", read)
    os.close(write)
    assert is_held_elsewhere(read)
    send(store, "FDSTOREREMOVE=1\nFDNAME=a", read)
    assert [name for name, _ in store.descriptors()] == ["b"]
    assert not is_held_elsewhere(read)
    os.close(read)


def test_the_store_keeps_no_more_than_its_bound(store: FdStore) -> None:
    read, write = os.pipe()
    for _ in range(2):
        send(store, "FDSTORE=1", *[read] * (MAX_DESCRIPTORS - 1))
    assert len(store.descriptors()) == MAX_DESCRIPTORS
    os.close(read)
    os.close(write)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=f"at most {MAX_UNIX_PATH}"):
        FdStore(tmp_path / ("s" * MAX_UNIX_PATH))
