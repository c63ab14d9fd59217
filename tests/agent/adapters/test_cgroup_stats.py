"""Samples written after the kernel's documented formats: v2 as on Raspberry Pi OS, v1, and a hybrid of both."""

import os
from pathlib import Path
from typing import Final

import pytest

from edge.agent.adapters.cgroup_files import (
    container_group,
    parse_blkio,
    parse_groups,
    parse_io_stat,
    parse_keyed,
    parse_limit,
    parse_net_dev,
    parse_start_ticks,
)
from edge.agent.adapters.cgroup_stats import CgroupMeter
from edge.agent.telemetry.ports import ContainerSample, RunningContainer

ID: Final = "5d" * 32
CONTAINER: Final = RunningContainer(ID, 4242, "task-1", "web")
TICKS: Final = os.sysconf("SC_CLK_TCK")

STAT: Final = f"4242 (a) b ({ID[:6]}) S 1 4242 4242 0 -1 4194560 1 0 0 0 12 3 0 0 20 0 1 0 {90 * TICKS} 1 2 3\n"
NET_DEV: Final = """\
Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo: 999999    9999    9    9    0     0          0         0   999999    9999    9    9    0     0       0 0
  eth0: 1048576    1200    1    2    0     0          0         0    65536     800    3    4    0     0       0 0
  eth1:     100       2    0    0    0     0          0         0       50       1    0    0    0     0       0 0
"""
IO_STAT: Final = """\
179:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0
8:0 rbytes=100 wbytes=0 rios=1 wios=0 dbytes=0 dios=0
"""
BLKIO: Final = """\
8:0 Read 4096
8:0 Write 12288
8:0 Sync 12288
8:0 Async 4096
8:0 Discard 0
8:0 Total 16384
179:0 Read 1
179:0 Write 2
Total 16387
"""


class Tree:
    """`/proc` and `/sys/fs/cgroup` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroup = folder / "proc", folder / "cgroup"
        self.write(self.proc / "4242/stat", STAT)
        self.write(self.proc / "4242/net/dev", NET_DEV)
        self.namespace("4242", "net:[4026532000]")
        self.namespace("self", "net:[4026531992]")

    def write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def namespace(self, process: str, name: str) -> None:
        link = self.proc / process / "ns/net"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(name)

    def unified(self, path: str, inside: str = "", *, memory: bool = True, root: str = "") -> None:
        self.write(self.proc / "4242/cgroup", f"0::{path}{inside}\n")
        group = self.cgroup / root / path.lstrip("/")
        self.write(group / "cpu.stat", "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n")
        self.write(group / "io.stat", IO_STAT)
        if memory:
            self.write(group / "memory.current", "52428800\n")
            self.write(group / "memory.max", "max\n")
            self.write(group / "memory.stat", "anon 1000\nfile 30000000\ninactive_anon 5\ninactive_file 20971520\n")
            self.write(group / "memory.events", "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n")

    def legacy(self, path: str, cpu: str = "cpu,cpuacct") -> None:
        lines = (f"12:{cpu}:{path}", f"5:memory:{path}", f"4:blkio:{path}", "1:name=systemd:/init.scope", "0::/")
        self.write(self.proc / "4242/cgroup", "\n".join(lines) + "\n")
        inner = path.lstrip("/")
        self.write(self.cgroup / cpu / inner / "cpuacct.usage", "2500000123\n")
        memory = self.cgroup / "memory" / inner
        self.write(memory / "memory.usage_in_bytes", "52428800\n")
        self.write(memory / "memory.limit_in_bytes", "67108864\n")
        self.write(memory / "memory.stat", "cache 30000000\ninactive_file 1\ntotal_inactive_file 20971520\n")
        self.write(memory / "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
        self.write(self.cgroup / "blkio" / inner / "blkio.throttle.io_service_bytes", BLKIO)

    def read(self) -> ContainerSample:
        return CgroupMeter(self.proc, self.cgroup).read([CONTAINER])[ID]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("inside", ["", "/container", "/container/init.scope"])
def test_version_2_is_read_for_the_whole_container(tree: Tree, inside: str) -> None:
    tree.unified(f"/machine.slice/libpod-{ID}.scope", inside)
    assert tree.read() == ContainerSample(
        since_ms=90_000,
        cpu_ns=2_500_000_000,
        memory_bytes=52_428_800,
        working_set_bytes=31_457_280,
        memory_limit_bytes=None,
        oom_kills=1,
        rx_bytes=1_048_676,
        tx_bytes=65_586,
        rx_packets=1202,
        tx_packets=801,
        net_errors=10,
        read_bytes=4196,
        written_bytes=8192,
    )


@pytest.mark.parametrize("cpu", ["cpu,cpuacct", "cpuacct"])
def test_version_1_is_read(tree: Tree, cpu: str) -> None:
    tree.legacy(f"/edge/task-1/libpod-{ID}", cpu)
    sample = tree.read()
    assert (sample.cpu_ns, sample.memory_bytes, sample.working_set_bytes) == (2_500_000_123, 52_428_800, 31_457_280)
    assert (sample.memory_limit_bytes, sample.oom_kills) == (67_108_864, 3)
    assert (sample.read_bytes, sample.written_bytes) == (4097, 12_290)


def test_version_1_takes_what_groups_below_read_when_the_kernel_tells(tree: Tree) -> None:
    path = f"/libpod_parent/libpod-{ID}"
    tree.legacy(path)
    recursive = tree.cgroup / "blkio" / path.lstrip("/") / "blkio.throttle.io_service_bytes_recursive"
    tree.write(recursive, "8:0 Read 77\n8:0 Write 88\n")
    assert (tree.read().read_bytes, tree.read().written_bytes) == (77, 88)


def test_hybrid_takes_each_controller_from_where_it_is(tree: Tree) -> None:
    path = f"/machine/libpod-{ID}"
    tree.unified(path, root="unified")
    tree.write(tree.cgroup / "memory" / path.lstrip("/") / "memory.usage_in_bytes", "4096\n")
    tree.write(tree.proc / "4242/cgroup", f"5:memory:{path}\n0::{path}\n")
    sample = tree.read()
    assert (sample.cpu_ns, sample.memory_bytes, sample.read_bytes) == (2_500_000_000, 4096, 4196)
    assert sample.working_set_bytes is None


def test_without_the_memory_controller_memory_is_left_out_and_not_zero(tree: Tree) -> None:
    """Raspberry Pi OS before somebody adds cgroup_enable=memory."""
    tree.unified(f"/machine.slice/libpod-{ID}.scope", memory=False)
    sample = tree.read()
    assert sample.cpu_ns == 2_500_000_000
    assert (sample.memory_bytes, sample.working_set_bytes, sample.oom_kills) == (None, None, None)


def test_the_host_s_own_network_is_not_a_container_s(tree: Tree) -> None:
    tree.unified(f"/machine.slice/libpod-{ID}.scope")
    tree.namespace("self", "net:[4026532000]")
    sample = tree.read()
    assert (sample.rx_bytes, sample.tx_packets, sample.net_errors) == (None, None, None)
    assert sample.read_bytes == 4196


def test_a_process_id_that_is_somebody_else_s_by_now_tells_nothing(tree: Tree) -> None:
    tree.unified(f"/machine.slice/libpod-{ID}.scope")
    meter = CgroupMeter(tree.proc, tree.cgroup)
    assert ID in meter.read([CONTAINER])
    tree.write(tree.proc / "4242/stat", STAT.replace(f" {90 * TICKS} ", f" {91 * TICKS} "))
    tree.write(tree.proc / "4242/cgroup", "0::/user.slice\n")
    assert meter.read([CONTAINER]) == {}
    assert meter.read([CONTAINER]) == {}


def test_a_container_whose_group_is_gone_is_left_out_and_the_others_are_not(tree: Tree) -> None:
    tree.unified(f"/machine.slice/libpod-{ID}.scope")
    gone = RunningContainer("ab" * 32, 5555, "task-2", "gone")
    assert set(CgroupMeter(tree.proc, tree.cgroup).read([gone, CONTAINER])) == {ID}
    meter = CgroupMeter(tree.proc, tree.cgroup)
    meter.read([CONTAINER])
    for path in (tree.cgroup / "machine.slice" / f"libpod-{ID}.scope").iterdir():
        path.unlink()
    assert meter.read([CONTAINER]) == {}


@pytest.mark.parametrize("text", ["", "garbage", "::\n", "a b c", "8:0 Read", "8:0 rbytes=x wbytes"])
def test_what_is_no_such_file_gives_nothing_and_no_error(text: str) -> None:
    assert parse_io_stat(text) == (0, 0)
    assert parse_blkio(text) == (0, 0)
    assert parse_net_dev(text) == (0, 0, 0, 0, 0)
    assert parse_keyed(text) == {}
    assert parse_limit(text) is None
    assert parse_start_ticks(text) is None
    assert all(container_group(group.path, ID) is None for group in parse_groups(text).values())


@pytest.mark.parametrize(
    ("text", "limit"), [("max\n", None), ("9223372036854771712\n", None), ("67108864\n", 67_108_864), ("", None)]
)
def test_no_limit_is_none_in_both_versions(text: str, limit: int | None) -> None:
    assert parse_limit(text) == limit
