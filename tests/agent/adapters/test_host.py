"""The machine as /proc and /sys tell it."""

import ctypes
import os
import platform
import socket
from pathlib import Path

import pytest

from edge.agent.adapters.clock import SystemClock
from edge.agent.adapters.host import LinuxHost
from edge.errors import EngineError

_TASK = "1" * 32


def test_the_facts_are_this_machines() -> None:
    facts = LinuxHost().facts()
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert facts.cpu_units == 1024 * (os.cpu_count() or 1)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    assert abs(facts.memory_mib - pages) <= 1
    assert facts.architecture == {"x86_64": "X86_64", "aarch64": "ARM64"}[platform.machine()]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_ports_in_use_are_those_that_listen(family: socket.AddressFamily) -> None:
    host = LinuxHost()
    with socket.socket(family, socket.SOCK_STREAM) as server, socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        for one in (server, datagrams):
            one.bind(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0))
        tcp, udp = server.getsockname()[1], datagrams.getsockname()[1]
        assert tcp not in host.ports_in_use("tcp"), "bound, and nobody listens"
        server.listen()
        assert tcp in host.ports_in_use("tcp")
        assert udp in host.ports_in_use("udp")
    assert tcp not in host.ports_in_use("tcp")


def test_dynamic_ports_come_from_the_kernels_range_or_ecss(tmp_path: Path) -> None:
    assert LinuxHost(proc=tmp_path).dynamic_port_range() == range(49153, 65536)
    (tmp_path / "sys/net/ipv4").mkdir(parents=True)
    (tmp_path / "sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    assert LinuxHost(proc=tmp_path).dynamic_port_range() == range(32768, 61000)


def test_a_task_without_limits_has_no_cgroup_of_its_own() -> None:
    assert LinuxHost().limit_task(_TASK, cpu_units=None, memory_mib=None) == ""
    LinuxHost().release_task(_TASK)


def test_limits_are_set_any_number_of_times_and_taken_away() -> None:
    host = LinuxHost()
    for memory in (64, 128):
        assert host.limit_task(_TASK, cpu_units=256, memory_mib=memory).endswith(_TASK)
    host.release_task(_TASK)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/*{_TASK}*"))


def test_limits_that_the_kernel_refuses_are_told_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "memory").touch()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "edge").touch()
    (tmp_path / "cgroup.subtree_control").mkdir()
    with pytest.raises(EngineError, match="does not take the limits") as caught:
        LinuxHost(cgroup=tmp_path).limit_task(_TASK, cpu_units=256, memory_mib=64)
    assert str(tmp_path) in str(caught.value)


def test_the_wall_clock_is_utc_in_milliseconds_and_the_other_one_only_counts() -> None:
    clock = SystemClock()
    assert len(clock.now()) == len("2026-11-23T12:00:00.000Z")
    first = clock.monotonic()
    assert clock.monotonic() >= first


def test_adjtimexs_answer_has_the_layout_the_clock_reads() -> None:
    # The kernel's tick is 10,000 microseconds unless somebody tuned it by up to ten percent (adjtimex(2)); it stands
    # six fields behind `status`, of which two are a timeval.
    buffer = ctypes.create_string_buffer(256)
    assert ctypes.CDLL(None).adjtimex(buffer) >= 0
    long = ctypes.sizeof(ctypes.c_long)
    tick = ctypes.c_long.from_buffer(buffer, long + 4 * long + 6 * long).value
    assert 9_000 <= tick <= 11_000
    assert isinstance(SystemClock().is_synchronized(), bool)
