"""What Podman is told on each kind of host."""

import resource
from dataclasses import replace

import pytest

from edge.errors import EngineError
from edge.podman_host import (
    CgroupMode,
    PodmanHostFacts,
    cgroup_mode,
    choose_podman_flags,
    choose_ulimits,
    v1_memory_controller,
)

_DEBIAN = PodmanHostFacts(
    cgroup_mode=CgroupMode.UNIFIED,
    memory_controller=True,
    systemd=True,
    crun="/usr/bin/crun",
    runc="",
    may_raise_limits=True,
    nofile_hard=524288,
    nproc_hard=31000,
)
_BARE = replace(
    _DEBIAN,
    cgroup_mode=CgroupMode.HYBRID,
    systemd=False,
    runc="/usr/sbin/runc",
    may_raise_limits=False,
    nofile_hard=20000,
    nproc_hard=96365,
)


def test_debian_with_systemd_needs_no_flags() -> None:
    assert choose_podman_flags(_DEBIAN) == ()
    assert choose_ulimits(_DEBIAN) == ()


def test_a_bare_hybrid_host_gets_cgroupfs_and_runc() -> None:
    assert choose_podman_flags(_BARE) == ("--cgroup-manager", "cgroupfs", "--runtime", "/usr/sbin/runc")


def test_runc_is_named_where_crun_is_missing() -> None:
    assert choose_podman_flags(replace(_DEBIAN, crun="", runc="/r")) == ("--runtime", "/r")


def test_a_hybrid_host_with_crun_alone_is_refused_with_the_way_out() -> None:
    with pytest.raises(EngineError) as caught:
        choose_podman_flags(replace(_BARE, runc=""))
    assert "apt install runc" in caught.value.hint


def test_no_runtime_at_all_is_refused() -> None:
    with pytest.raises(EngineError, match="neither"):
        choose_podman_flags(replace(_DEBIAN, crun=""))


def test_ulimits_stay_within_the_hosts_own_without_the_capability() -> None:
    assert choose_ulimits(_BARE) == (("nofile", 20000), ("nproc", 30000))
    unlimited = replace(_BARE, nofile_hard=resource.RLIM_INFINITY, nproc_hard=resource.RLIM_INFINITY)
    assert choose_ulimits(unlimited) == (("nofile", 1048576), ("nproc", 30000))


@pytest.mark.parametrize(
    ("mounts", "mode"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", CgroupMode.UNIFIED),
        (
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            CgroupMode.HYBRID,
        ),
        ("tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", CgroupMode.LEGACY),
    ],
)
def test_the_cgroup_mode_is_told_from_the_mounts(mounts: str, mode: CgroupMode) -> None:
    assert cgroup_mode(mounts) is mode


def test_a_memory_controller_that_is_off_is_noticed() -> None:
    head = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t50\t1\n"
    assert v1_memory_controller(head + "memory\t0\t50\t1\n")
    assert not v1_memory_controller(head + "memory\t0\t50\t0\n")
